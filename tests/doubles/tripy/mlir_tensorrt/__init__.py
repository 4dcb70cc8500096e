"""A double of the compiled half of NVIDIA Tripy, for tests without a GPU.

The real nvtripy runs on it, with nothing in it replaced: its modules, its checks, its tracing and
its own lowering, operation by operation. What it lowers to is kept as plain data (`program`), and
is run by torch on the CPU in place of an engine (`interpreter`). So it shows what a model computes;
of MLIR's passes, TensorRT's kernels and their rounding, of memory and of time it shows nothing.
"""

__version__ = "0.0.0+double"
