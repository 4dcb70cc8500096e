"""TensorRT and TensorRT-RTX, and the cache of engines."""
