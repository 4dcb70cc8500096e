"""Calls of the CUDA driver, via cuda-bindings or PyCUDA."""
