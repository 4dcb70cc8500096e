"""Operation counts of one ONNX node, from the shapes of its inputs and outputs.

Matrix products and convolutions are counted as in torch.utils.flop_counter: two operations for each
multiplication with its addition, including those with padding zeros. All other operators count, for
each element of their largest input or output, the steps that their definition takes, whatever a
step costs: one for an element-wise function or a reduction, five for a softmax. Operators that only
move, convert or rename values count nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, final

import onnx

Shape = tuple[int, ...]

STANDARD = ("", "ai.onnx")
MICROSOFT = "com.microsoft"
# Names of operators that compute matrix products, including operators that cannot be counted.
PRODUCT = re.compile(r"MatMul|Gemm|Conv|Attention|Einsum|RNN|GRU|LSTM|MoE")


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Operation counts: `matrix` for matrix products and convolutions, `other` for the rest."""

    matrix: int = 0
    other: int = 0


class UnknownWork(LookupError):
    """The operation count of a node does not follow from its shapes."""


@final
@dataclass(frozen=True)
class Call:
    """Node with the shapes of its inputs and outputs.

    Its methods raise LookupError for an unknown shape, and for a missing attribute.
    """

    node: onnx.NodeProto
    shapes: Mapping[str, Shape]

    def input(self, index: int) -> Shape:
        return self.shapes[self.node.input[index]]

    def output(self) -> Shape:
        return self.shapes[self.node.output[0]]

    def given(self, index: int) -> bool:
        """Return whether an optional input is present."""
        return len(self.node.input) > index and bool(self.node.input[index])

    def attribute(self, name: str, default: Any = None) -> Any:
        found = {a.name: a for a in self.node.attribute}
        if name not in found and default is not None:
            return default
        return onnx.helper.get_attribute_value(found[name])

    def largest(self) -> int:
        """Return the number of elements of the largest input or output."""
        names = filter(None, (*self.node.input, *self.node.output))
        return max(prod(self.shapes[name]) for name in names)


def count_operations(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> Operations | None:
    """Return the operation counts of a node, or None for an unknown operator or shape."""
    call = Call(node, shapes)
    try:
        if node.domain == MICROSOFT and node.op_type in FUSED:
            return _product(FUSED[node.op_type], call)
        if node.domain not in STANDARD:
            return None
        if node.op_type in PRODUCTS:
            return _product(PRODUCTS[node.op_type], call)
        if node.op_type in WHOLE:
            return WHOLE[node.op_type](call)
        if node.op_type in MOVES:
            return Operations()
        return Operations(other=STEPS[node.op_type] * call.largest())
    except (LookupError, ValueError):  # ValueError is raised for an invalid node
        return None


def is_product(node: onnx.NodeProto) -> bool:
    """Return whether a node, by its operator's name, computes matrix products or convolutions."""
    return PRODUCT.search(node.op_type) is not None


def _product(matrix: Callable[[Call], int], call: Call) -> Operations:
    """Return the counts of a product and of the steps after it: bias, activation, quantising."""
    name = call.node.op_type
    steps = sum(call.given(index) for index in SUMMANDS.get(name, ()))
    steps += bool(call.attribute("activation", b""))
    steps += STEPS["QuantizeLinear"] if name.startswith("QLinear") else 0
    return Operations(matrix=matrix(call), other=steps * prod(call.output()))


def _matmul(call: Call) -> int:
    return 2 * prod(call.output()) * call.input(0)[-1]


def _fused_matmul(call: Call) -> int:
    if call.attribute("transBatchA", 0):
        raise UnknownWork
    return 2 * prod(call.output()) * call.input(0)[-2 if call.attribute("transA", 0) else -1]


def _gemm(call: Call) -> int:
    return 2 * prod(call.output()) * call.input(0)[0 if call.attribute("transA", 0) else 1]


def _conv(call: Call) -> int:
    """Count a convolution with weight [out, in / groups, kernel …], input 3 of QLinearConv."""
    weight = call.input(3 if call.node.op_type == "QLinearConv" else 1)
    return 2 * prod(call.output()) * prod(weight[1:])


def _conv_transpose(call: Call) -> int:
    """Count a transposed convolution with weight [in, out / groups, kernel …].

    Each input element is multiplied by all weights of its input channel.
    """
    return 2 * prod(call.input(0)) * prod(call.input(1)[1:])


def _einsum(call: Call) -> int:
    """Count two operands: a multiplication and an addition at every combination of the indices.

    Raises UnknownWork for another number of operands, and for an ellipsis.
    """
    terms = call.attribute("equation").decode().replace(" ", "").split("->")[0].split(",")
    if len(terms) != 2 or "." in "".join(terms):
        raise UnknownWork
    extents: dict[str, int] = {}
    for number, term in enumerate(terms):
        for letter, extent in zip(term, call.input(number), strict=False):
            extents[letter] = max(extent, extents.get(letter, 1))  # 1 is broadcast
    return 2 * prod(extents.values())


def _attention(call: Call) -> Operations:
    """Count Q K^T and its product with V, then scaling and softmax of the scores.

    Q is [batch, heads, time, size], or [batch, time, heads * size] with `q_num_heads`. Past keys
    (input 4) are placed before those of K.
    """
    query, keys = call.input(0), call.input(1)[-2]
    if call.given(4):
        keys += call.input(4)[-2]
    rows = prod(query[:-1]) * (call.attribute("q_num_heads") if len(query) == 3 else 1)
    matrix = 2 * keys * (prod(query) + prod(call.output()))
    return Operations(matrix=matrix, other=(1 + STEPS["Softmax"]) * rows * keys)


# Functions, products and sums per element of the state, without the biases of the gates.
STATE_STEPS = {"RNN": 1, "GRU": 8, "LSTM": 9}


def _recurrent(call: Call) -> Operations:
    """Count an RNN, GRU or LSTM.

    X is [time, batch, size], W [directions, gates * hidden, size], R [directions, …, hidden]. At
    each time step, every direction multiplies by its W and R, and adds its biases B. Raises
    UnknownWork if the lengths of the sequences are an input, since the count then depends on their
    values.
    """
    if call.given(4):
        raise UnknownWork
    steps = prod(call.input(0)[:2])
    directions, _, hidden = call.input(2)
    biases = prod(call.input(3)) if call.given(3) else 0
    return Operations(
        matrix=2 * steps * (prod(call.input(1)) + prod(call.input(2))),
        other=steps * (directions * hidden * STATE_STEPS[call.node.op_type] + biases),
    )


def _variadic(call: Call) -> Operations:
    return Operations(other=max(1, len(call.node.input) - 1) * prod(call.output()))


def _pool(call: Call) -> Operations:
    return Operations(other=prod(call.output()) * prod(call.attribute("kernel_shape")))


def _resize(call: Call) -> Operations:
    """Count a multiplication and an addition for each neighbour along the resized axes.

    Mode "nearest" counts nothing.
    """
    mode = call.attribute("mode", b"nearest").decode()
    if mode == "nearest":
        return Operations()
    changed = sum(a != b for a, b in zip(call.input(0), call.output(), strict=True))
    neighbours = {"linear": 2, "cubic": 4}[mode] ** changed
    return Operations(other=2 * neighbours * prod(call.output()))


PRODUCTS: dict[str, Callable[[Call], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
}
FUSED: dict[str, Callable[[Call], int]] = {
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "FusedMatMul": _fused_matmul,
}
SUMMANDS = {  # indices of the inputs that are added to the product
    "Conv": (2,),
    "ConvTranspose": (2,),
    "FusedConv": (2, 3),
    "FusedGemm": (2,),
    "Gemm": (2,),
    "QLinearConv": (8,),
}
WHOLE: dict[str, Callable[[Call], Operations]] = {
    "Attention": _attention,
    "AveragePool": _pool,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "LpPool": _pool,
    "Max": _variadic,
    "MaxPool": _pool,
    "Mean": _variadic,
    "Min": _variadic,
    "RNN": _recurrent,
    "Resize": _resize,
    "Sum": _variadic,
}
ELEMENT_WISE = """
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid
HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log Mish Mod Mul Neg Not Or PRelu Pow Reciprocal
Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Swish Tan Tanh
ThresholdedRelu Where Xor
"""
REDUCTIONS = """
ArgMax ArgMin CumProd CumSum GlobalAveragePool GlobalLpPool GlobalMaxPool Hardmax ReduceL1 ReduceL2
ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
"""
STEPS = {
    **dict.fromkeys((*ELEMENT_WISE.split(), *REDUCTIONS.split()), 1),
    "BatchNormalization": 2,  # scale, shift
    "DequantizeLinear": 2,  # subtract the zero point, scale
    "QuantizeLinear": 3,  # divide, round, add the zero point
    "DynamicQuantizeLinear": 5,  # minimum, maximum, then as QuantizeLinear
    "RotaryEmbedding": 3,  # two products, one sum
    "LpNormalization": 3,  # power, sum, divide
    "RMSNormalization": 4,  # square, mean, divide, scale
    "MeanVarianceNormalization": 5,  # mean, subtract, square, mean, divide
    "Softmax": 5,  # maximum, subtract, exponential, sum, divide
    "LogSoftmax": 5,  # maximum, subtract, exponential, sum, subtract
    **dict.fromkeys(  # mean, subtract, square, mean, divide, scale, shift
        ("GroupNormalization", "InstanceNormalization", "LayerNormalization"), 7
    ),
}
MOVING = """
BitCast Cast CastLike CenterCropPad Compress Concat ConcatFromSequence Constant ConstantOfShape
DepthToSpace Dropout Expand EyeLike Flatten Gather GatherElements GatherND Identity OneHot Pad Range
Reshape ReverseSequence Scatter ScatterElements ScatterND SequenceAt SequenceConstruct SequenceEmpty
SequenceErase SequenceInsert SequenceLength Shape Size Slice SpaceToDepth Split SplitToSequence
Squeeze TensorScatter Tile Transpose Trilu Unsqueeze
"""
MOVES = frozenset(MOVING.split())
