"""ONNX Runtime on the CPU and with the execution providers of a GPU."""
