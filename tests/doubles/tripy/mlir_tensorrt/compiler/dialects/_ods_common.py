"""Of the double."""

from mlir_tensorrt.compiler.ir import Value


def get_op_result_or_value(value: Value) -> Value:
    return value
