"""Exporters to engines of TensorRT and TensorRT-RTX."""
