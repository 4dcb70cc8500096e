"""A double of TensorRT 10 that has no more than what nvtripy names when it is imported."""

__version__ = "10.15.0+double"

float32, float16, fp8, bfloat16 = "float32", "float16", "fp8", "bfloat16"
int4, int8, int32, int64, bool = "int4", "int8", "int32", "int64", "bool"
