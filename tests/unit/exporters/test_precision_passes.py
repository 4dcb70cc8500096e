"""Graphs in another floating-point dtype: what is converted, what stays, and that outputs are near.

Every graph that comes out is checked by onnx with strict inference of types.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from exporters.onnx.reader import read_precision
from exporters.passes.precision import Float64
from exporters.passes.retyping import rounded
from exporters.passes.rewriting import apply
from toolkit.core.errors import SourceError
from toolkit.parity.tolerances import TOLERANCES

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 6, 5)).astype(np.float32)
declared = helper.make_tensor_value_info
FLOAT, HALF, BRAIN = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
YES_NO = TensorProto.BOOL
node = helper.make_node
Attributes = dict[str, Any]


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(RNG.uniform(-1, 1, shape).astype(np.float32), name)


def held(name: str, values: object, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    tensors: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 20,
    kind: int = FLOAT,
    rank: int = 4,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [declared("x", FLOAT, ["N", 3, 6, 5])],
        [declared("y", kind, [None] * rank)],
        tensors,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("theirs", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def any_float(name: str) -> onnx.ValueInfoProto:
    return declared(name, FLOAT, None)


def converted(before: onnx.ModelProto, place: Path, *names: str) -> onnx.ModelProto:
    path = place / "model.onnx"
    onnx.save(before, path)
    apply(names, path)
    after = onnx.load(path)
    onnx.checker.check_model(after, full_check=True)
    return after


def run(made: onnx.ModelProto, x: np.ndarray = X) -> np.ndarray:
    (found,) = ReferenceEvaluator(made).run(None, {"x": x})
    return np.asarray(found)


def near(after: onnx.ModelProto, before: onnx.ModelProto, precision: str) -> None:
    got, expected = run(after), run(before)
    assert got.dtype == expected.dtype
    bounds = TOLERANCES[precision]
    most = bounds.absolute + bounds.relative * np.abs(expected).max()
    assert np.abs(got.astype(float) - expected).max() <= most


def kinds(made: onnx.ModelProto) -> list[str]:
    return [each.op_type for each in made.graph.node]


def types(made: onnx.ModelProto) -> dict[str, int]:
    """The type of every value, as onnx infers it."""
    graph = onnx.shape_inference.infer_shapes(made, strict_mode=True).graph
    found = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    found |= {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)
    }
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def lenet_like(opset: int = 20) -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w", "b"], ["h"], pads=[1, 1, 1, 1]),
        node("Relu", ["h"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "v", "c"], ["y"], transB=1),
    ]
    tensors = [weight("w", 4, 3, 3, 3), weight("b", 4), weight("v", 10, 24), weight("c", 10)]
    return model(nodes, tensors, opset=opset, rank=2)


def odenet_like() -> onnx.ModelProto:
    """Batch norms, a shortcut, and a step that takes the time as a channel, as exporters write."""
    nodes = [
        node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["h", "s", "b", "m", "v"], ["n"]),
        node("Shape", ["n"], ["shape"]),
        node("Mul", ["shape", "keep"], ["masked"]),
        node("Add", ["masked", "one"], ["clock_shape"]),
        node("Expand", ["t", "clock_shape"], ["clock"]),
        node("Concat", ["n", "clock"], ["both"], axis=1),
        node("Conv", ["both", "k"], ["f"], pads=[1, 1, 1, 1]),
        node("Constant", [], ["step"], value_float=0.25),
        node("Mul", ["f", "step"], ["scaled"]),
        node("Add", ["n", "scaled"], ["y"]),
    ]
    ones = np.ones(3, np.float32)
    tensors = [
        weight("w", 3, 3, 3, 3),
        *(held(name, ones * value) for name, value in zip("sbmv", (1, 0.1, 0.2, 0.9), strict=True)),
        held("keep", [1, 0, 1, 1], np.int64),
        held("one", [0, 1, 0, 0], np.int64),
        held("t", [0.5]),
        weight("k", 3, 4, 3, 3),
    ]  # fmt: skip
    return model(nodes, tensors)


@pytest.mark.parametrize("before", [lenet_like(), odenet_like()], ids=["lenet", "odenet"])
@pytest.mark.parametrize(("name", "kind"), [("float16", HALF), ("bfloat16", BRAIN)])
def test_all_is_converted_between_two_casts(
    tmp_path: Path, before: onnx.ModelProto, name: str, kind: int
) -> None:
    after = converted(before, tmp_path, name)
    near(after, before, name)
    assert kinds(after).count("Cast") == 2
    floats = {v: t for v, t in types(after).items() if t in (FLOAT, HALF, BRAIN)}
    assert {value for value, found in floats.items() if found != kind} == {"x", "y"}
    assert {t.name for t in after.graph.initializer} == {t.name for t in before.graph.initializer}
    assert read_precision(tmp_path / "model.onnx") == name


def test_an_operator_without_the_type_stays_between_casts(tmp_path: Path) -> None:
    """Conv has no bfloat16 before opset 22, and from opset 17 on nothing is raised to it."""
    before = lenet_like(opset=17)
    after = converted(before, tmp_path, "bfloat16")
    near(after, before, "bfloat16")
    assert after.opset_import[0].version == 17
    found = types(after)
    assert [found[name] for name in ("w", "b", "h", "v", "c")] == [FLOAT] * 3 + [BRAIN] * 2
    assert read_precision(tmp_path / "model.onnx") == "mixed"


def test_the_opset_is_raised_only_where_operators_keep_their_meaning(tmp_path: Path) -> None:
    """GridSample has other names for its modes from opset 20 on."""
    nodes = [node("GridSample", ["x", "grid"], ["y"], mode="bilinear")]
    before = model(nodes, [held("grid", np.zeros((2, 2, 2, 2)))], opset=18)
    assert converted(before, tmp_path, "bfloat16").opset_import[0].version == 18
    assert converted(lenet_like(opset=18), tmp_path, "bfloat16").opset_import[0].version == 22


def test_a_graph_that_cannot_hold_the_type_is_refused_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(lenet_like(opset=12), path)
    was = path.read_bytes()
    with pytest.raises(SourceError, match="opset 12 has no bfloat16"):
        apply(["bfloat16"], path)
    assert path.read_bytes() == was


def test_a_graph_that_would_not_be_valid_is_refused_as_it_was(tmp_path: Path) -> None:
    """Here it never was: the output has no rank."""
    path = tmp_path / "model.onnx"
    before = model([node("Theirs", ["x"], ["y"], domain="theirs")])
    before.graph.output[0].CopyFrom(any_float("y"))
    onnx.save(before, path)
    was = path.read_bytes()
    with pytest.raises(SourceError, match="as float16 it is invalid"):
        apply(["float16"], path)
    assert path.read_bytes() == was


def test_scales_that_are_float32_by_definition_stay(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["h"]),
        node("Resize", ["h", "", "scales"], ["y"], mode="linear"),
    ]
    before = model(nodes, [weight("w", 4, 3, 1, 1), held("scales", [1, 1, 2, 1.5])])
    after = converted(before, tmp_path, "float16")
    near(after, before, "float16")
    assert [types(after)[name] for name in ("h", "w", "scales")] == [HALF, HALF, FLOAT]
    assert read_precision(tmp_path / "model.onnx") == "float16"


def test_a_constant_that_is_read_both_ways_is_stored_twice(tmp_path: Path) -> None:
    nodes = [
        node("Resize", ["x", "", "both"], ["h"]),
        node("Slice", ["both", "end", "four"], ["last"]),
        node("Mul", ["h", "last"], ["y"]),
    ]
    tensors = [
        held("both", [1, 1, 2, 1.7]),
        held("end", [3], np.int64),
        held("four", [4], np.int64),
    ]
    before = model(nodes, tensors)
    after = converted(before, tmp_path, "float16")
    near(after, before, "float16")
    assert (types(after)["both"], types(after)["both.float16"]) == (FLOAT, HALF)
    assert kinds(after).count("Cast") == 2


def test_an_operator_of_another_maker_is_fed_float32(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["h"]),
        node("Theirs", ["h", "w"], ["k"], domain="theirs"),
        node("Relu", ["k"], ["r"]),
        node("Conv", ["r", "w"], ["y"]),
    ]
    before = model(nodes, [weight("w", 3, 3, 1, 1)])
    after = converted(before, tmp_path, "float16")
    theirs = next(each for each in after.graph.node if each.op_type == "Theirs")
    made = {out: each for each in after.graph.node for out in each.output}
    assert made[theirs.input[0]].op_type == "Cast"
    stored = {tensor.name: tensor.data_type for tensor in after.graph.initializer}
    assert stored[theirs.input[1]] == FLOAT
    assert sorted(stored.values()) == [FLOAT, HALF]


class Theirs(onnx.reference.op_run.OpRun):  # type: ignore[misc,name-defined]
    op_domain = "theirs"

    def _run(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray]:
        assert a.dtype == b.dtype == np.float32
        return (a * b.sum(),)


def test_what_another_maker_gives_is_converted_again(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["h"]),
        node("Theirs", ["h", "w"], ["k"], domain="theirs"),
        node("Conv", ["k", "w"], ["l"]),
        node("Relu", ["l"], ["y"]),
    ]
    before = model(nodes, [weight("w", 3, 3, 1, 1)])
    after = converted(before, tmp_path, "float16")
    first, second = (
        ReferenceEvaluator(made, new_ops=[Theirs]).run(None, {"x": X})[0]
        for made in (before, after)
    )
    np.testing.assert_allclose(second, first, rtol=1e-2, atol=2e-2)
    assert second.dtype == np.float32
    assert types_of_inputs(after, "Conv") == {HALF}


def types_of_inputs(made: onnx.ModelProto, kind: str) -> set[int]:
    casts = {
        each.output[0]: each.attribute[0].i for each in made.graph.node if each.op_type == "Cast"
    }
    stored = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    known = {**casts, **stored}
    return {known[name] for each in made.graph.node if each.op_type == kind for name in each.input}


def branches(outer: str) -> Attributes:
    """One that reads a value and a weight from outside, one with a constant of its own."""
    then = helper.make_graph(
        [node("Mul", [outer, "w"], ["a"])], "then", [], [declared("a", FLOAT, None)]
    )
    other = helper.make_graph(
        [node("Constant", [], ["c"], value=held("c", [[2.5]])), node("Add", [outer, "c"], ["b"])],
        "else",
        [],
        [declared("b", FLOAT, None)],
    )  # fmt: skip
    return {"then_branch": then, "else_branch": other}


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("sign", [1, -1])
def test_branches_are_converted_too(tmp_path: Path, name: str, sign: int) -> None:
    nodes = [
        node("Relu", ["x"], ["h"]),
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["is"]),
        node("If", ["is"], ["k"], **branches("h")),
        node("Exp", ["k"], ["y"]),
    ]
    before = model(nodes, [weight("w", 5), held("zero", 0)])
    after = converted(before, tmp_path, name)
    x = sign * np.abs(X)
    got, expected = run(after, x), run(before, x)
    np.testing.assert_allclose(got, expected, rtol=2 * TOLERANCES[name].relative, atol=1e-2)
    assert types(after)["k"] == (HALF if name == "float16" else BRAIN)
    assert kinds(after).count("Cast") == 2
    inner = [g.g for each in after.graph.node if each.op_type == "If" for g in each.attribute]
    assert "Cast" not in [each.op_type for body in inner for each in body.node]


def test_a_value_that_branches_need_in_float32_is_cast_once_outside(tmp_path: Path) -> None:
    """ONNX has no Range of float16."""
    bodies = {
        which: helper.make_graph(
            [node("Range", ["low", "high", "one"], [f"{which}.r"])],
            which,
            [],
            [declared(f"{which}.r", FLOAT, None)],
        )
        for which in ("then_branch", "else_branch")
    }
    nodes = [
        node("ReduceMin", ["x"], ["low"], keepdims=0),
        node("Add", ["low", "three"], ["high"]),
        node("Greater", ["low", "one"], ["is"]),
        node("If", ["is"], ["k"], **bodies),
        node("Relu", ["k"], ["y"]),
    ]
    before = model(nodes, [held("three", 3.25), held("one", 1)], rank=1)
    after = converted(before, tmp_path, "float16")
    near(after, before, "float16")
    assert sum(each.output[0] == "low.float32" for each in after.graph.node) == 1
    assert types(after)["k"] == HALF


def test_a_loop_carries_the_new_type(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            node("Identity", ["going"], ["goes"]),
            node("Mul", ["h", "w"], ["m"]),
            node("Add", ["m", "x"], ["next"]),
            node("ReduceMax", ["next"], ["seen"], keepdims=0),
        ],
        "body",
        [declared("i", TensorProto.INT64, []), declared("going", YES_NO, []), any_float("h")],
        [declared("goes", YES_NO, []), any_float("next"), any_float("seen")],
    )
    nodes = [
        node("Loop", ["three", "yes", "x"], ["last", "maxima"], body=body),
        node("ReduceSum", ["maxima"], ["total"], keepdims=0),
        node("Mul", ["last", "total"], ["y"]),
    ]
    tensors = [weight("w", 5), held("three", 3, np.int64), held("yes", True, np.bool_)]
    before = model(nodes, tensors)
    after = converted(before, tmp_path, "float16")
    near(after, before, "float16")
    found = types(after)
    assert (found["last"], found["maxima"], found["w"]) == (HALF, HALF, HALF)
    assert kinds(after) == ["Cast", "Loop", "ReduceSum", "Mul", "Cast"]


def test_dtypes_in_attributes_follow(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["filled"], value=held("v", [0.3])),
        node("EyeLike", ["square"], ["eye"]),
        node("ArgMax", ["x"], ["index"], axis=3),
        node("Cast", ["index"], ["number"], to=FLOAT),
        node("Add", ["filled", "number"], ["a"]),
        node("MatMul", ["x", "eye"], ["b"]),
        node("Add", ["a", "b"], ["y"]),
    ]
    before = model(nodes, [held("square", np.zeros((5, 5)), np.float32)])
    after = converted(before, tmp_path, "float16")
    near(after, before, "float16")
    found = types(after)
    assert [found[name] for name in ("filled", "eye", "a")] == [HALF] * 3
    casts = [each for each in after.graph.node if each.op_type == "Cast"]
    assert [(each.input[0], each.attribute[0].i) for each in casts] == [
        ("x", HALF),
        ("index", HALF),
        (casts[2].input[0], FLOAT),
    ]


def test_arithmetic_on_extents_stays_exact(tmp_path: Path) -> None:
    """257 is no bfloat16: a slice of 257 rows would become one of 256."""
    nodes = [
        node("Shape", ["x"], ["shape"], start=0, end=1),
        node("Cast", ["shape"], ["extent"], to=FLOAT),
        node("Mul", ["extent", "half"], ["halved"]),
        node("Cast", ["halved"], ["end"], to=TensorProto.INT64),
        node("Slice", ["x", "start", "end"], ["y"]),
    ]
    before = model(nodes, [held("half", [0.5]), held("start", [0], np.int64)])
    after = converted(before, tmp_path, "bfloat16")
    assert run(after, np.zeros((514, 3, 6, 5), np.float32)).shape == (257, 3, 6, 5)


def test_whole_numbers_are_read_from_an_input_as_it_is(tmp_path: Path) -> None:
    nodes = [node("Cast", ["x"], ["y"], to=TensorProto.INT64)]
    after = converted(model(nodes, kind=TensorProto.INT64), tmp_path, "bfloat16")
    assert kinds(after) == ["Cast"]
    assert run(after, np.full_like(X, 257.0)).max() == 257


def test_casts_that_were_there_do_not_come_in_pairs(tmp_path: Path) -> None:
    nodes = [
        node("Cast", ["x"], ["h"], to=HALF),
        node("Cast", ["h"], ["f"], to=FLOAT),
        node("Relu", ["f"], ["r"]),
        node("Cast", ["r"], ["y"], to=FLOAT),
    ]
    after = converted(model(nodes), tmp_path, "float16")
    assert kinds(after) == ["Cast", "Relu", "Cast"]


def test_a_cast_that_does_nothing_is_looked_through(tmp_path: Path) -> None:
    nodes = [node("Cast", ["x"], ["h"], to=FLOAT), node("Add", ["x", "h"], ["y"])]
    assert kinds(converted(model(nodes), tmp_path, "float16")) == ["Cast", "Add", "Cast"]


def test_bits_are_not_rounded(tmp_path: Path) -> None:
    nodes = [
        node("Relu", ["x"], ["h"]),
        node("BitCast", ["h"], ["bits"], to=TensorProto.INT32),
        node("BitCast", ["bits"], ["back"], to=FLOAT),
        node("Relu", ["back"], ["y"]),
    ]
    before = model(nodes, opset=26)
    before.ir_version = 13
    after = converted(before, tmp_path, "float16")
    near(after, before, "float16")


def test_numbers_in_attributes_fix_the_type_of_an_input() -> None:
    """LabelEncoder takes float64 too, though not where its keys are a list of float32."""
    nodes = [
        node("Relu", ["x"], ["h"]),
        node(
            "LabelEncoder",
            ["h"],
            ["y"],
            domain="ai.onnx.ml",
            keys_floats=[0.0],
            values_floats=[7.5],
        ),
    ]
    before = model(nodes)
    before.opset_import.append(helper.make_opsetid("ai.onnx.ml", 4))
    made = ir.from_proto(before)
    Float64()(made)
    assert kinds(ir.to_proto(made)) == ["Relu", "Cast", "LabelEncoder", "Cast"]


def test_a_weight_divided_by_an_extent_is_a_weight(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["shape"], start=3),
        node("Cast", ["shape"], ["extent"], to=FLOAT),
        node("Div", ["w", "extent"], ["scaled"]),
        node("MatMul", ["x", "scaled"], ["y"]),
    ]
    before = model(nodes, [weight("w", 5, 4)])
    after = converted(before, tmp_path, "float16")
    near(after, before, "float16")
    assert types(after)["w"] == HALF


def test_functions_are_converted_within(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 20)]
    twice = helper.make_function(
        "ours", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], opsets
    )
    before = model([node("Twice", ["x"], ["y"], domain="ours")])
    before.functions.append(twice)
    before.opset_import.append(helper.make_opsetid("ours", 1))
    after = converted(before, tmp_path, "float16")
    near(after, before, "float16")
    assert kinds(after) == ["Cast", "Add", "Cast"]


def test_a_branch_that_another_maker_computes_is_converted_after(tmp_path: Path) -> None:
    then = helper.make_graph(
        [node("Theirs", ["h", "w"], ["a"], domain="theirs")],
        "then",
        [],
        [helper.make_empty_tensor_value_info("a")],
    )
    other = helper.make_graph([node("Mul", ["h", "w"], ["b"])], "else", [], [any_float("b")])
    nodes = [
        node("Relu", ["x"], ["h"]),
        node("If", ["is"], ["k"], then_branch=then, else_branch=other),
        node("Exp", ["k"], ["y"]),
    ]
    before = model(nodes, [weight("w", 5), held("is", True, np.bool_)])
    before.graph.value_info.append(declared("k", FLOAT, [None] * 4))
    path = tmp_path / "model.onnx"
    onnx.save(before, path)
    apply(["float16"], path)
    made = next(each for each in onnx.load(path).graph.node if each.op_type == "If")
    bodies = {each.name: each.g for each in made.attribute}
    assert kinds_of(bodies["then_branch"]) == ["Theirs", "Cast"]
    assert kinds_of(bodies["else_branch"]) == ["Mul"]


def kinds_of(graph: onnx.GraphProto) -> list[str]:
    return [each.op_type for each in graph.node]


def test_sequences_stay(tmp_path: Path) -> None:
    nodes = [
        node("Relu", ["x"], ["h"]),
        node("SequenceConstruct", ["h", "x"], ["s"]),
        node("ConcatFromSequence", ["s"], ["c"], axis=1),
        node("Exp", ["c"], ["y"]),
    ]
    before = model(nodes)
    after = converted(before, tmp_path, "float16")
    near(after, before, "float16")
    assert (types(after)["h"], types(after)["c"]) == (HALF, FLOAT)


def test_what_a_body_on_sequences_takes_and_gives_stays(tmp_path: Path) -> None:
    body = helper.make_graph(
        [node("Exp", ["e"], ["f"])], "body", [any_float("e")], [any_float("f")]
    )
    nodes = [
        node("SequenceConstruct", ["x", "x"], ["s"]),
        node("SequenceMap", ["s"], ["t"], body=body),
        node("ConcatFromSequence", ["t"], ["y"], axis=1),
    ]
    before = model(nodes)
    after = converted(before, tmp_path, "float16")
    near(after, before, "float16")
    assert kinds(after) == ["SequenceConstruct", "SequenceMap", "ConcatFromSequence"]


def test_statistics_keep_the_type_that_an_attribute_says(tmp_path: Path) -> None:
    """LayerNormalization gives its mean in `stash_type`, though its schema allows bfloat16."""
    nodes = [
        node("LayerNormalization", ["x", "w"], ["n", "mean"]),
        node("Mul", ["n", "mean"], ["y"]),
    ]
    before = model(nodes, [weight("w", 5)])
    after = converted(before, tmp_path, "bfloat16")
    near(after, before, "bfloat16")
    assert (types(after)["n"], types(after)["mean"]) == (BRAIN, FLOAT)


def test_weights_that_are_inputs_too_become_weights(tmp_path: Path) -> None:
    before = lenet_like()
    before.graph.input.append(declared("w", FLOAT, [4, 3, 3, 3]))
    before.ir_version = 3
    before.graph.input.extend(
        declared(n, FLOAT, s) for n, s in (("b", [4]), ("v", [10, 24]), ("c", [10]))
    )
    before.opset_import[0].version = 8
    after = converted(before, tmp_path, "float16")
    assert [value.name for value in after.graph.input] == ["x"]
    assert types(after)["w"] == HALF


def test_float64_is_numpys(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Tanh", ["h"], ["t"]),
        node("Constant", [], ["c"], value_floats=[0.1, 0.2, 0.3, 0.4]),
        node("Mul", ["t", "c"], ["m"]),
        node("Softmax", ["m"], ["y"]),
    ]
    before = model(nodes, [weight("w", 5, 4)])
    held = ir.from_proto(before)
    Float64()(held)
    after = ir.to_proto(held)
    onnx.checker.check_model(after, full_check=True)
    assert [after.graph.input[0].type.tensor_type.elem_type] == [TensorProto.DOUBLE]
    assert kinds(after) == ["MatMul", "Tanh", "Constant", "Mul", "Softmax"]
    w = numpy_helper.to_array(before.graph.initializer[0]).astype(np.float64)
    c = np.array([0.1, 0.2, 0.3, 0.4], np.float32).astype(np.float64)
    x = np.random.default_rng(3).standard_normal((2, 3, 6, 5))
    exps = np.exp(np.tanh(x @ w) * c)
    got = run(after, x)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, exps / exps.sum(-1, keepdims=True), rtol=0, atol=1e-12)


def test_float64_leaves_what_has_none_in_float32() -> None:
    nodes = [
        node("Relu", ["x"], ["h"]),
        node("QuantizeLinear", ["h", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    before = model(nodes, [held("s", 0.1), held("z", 0, np.uint8)])
    made = ir.from_proto(before)
    Float64()(made)
    after = ir.to_proto(made)
    onnx.checker.check_model(after, full_check=True)
    assert kinds(after) == ["Relu", "Cast", "QuantizeLinear", "DequantizeLinear", "Cast"]
    got = run(after, X.astype(np.float64))
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, run(before), atol=1e-6)


def test_an_output_that_is_a_weight_keeps_its_name() -> None:
    before = model([node("Relu", ["x"], ["y"])])
    before.graph.initializer.append(weight("w", 3))
    before.graph.output.append(declared("w", FLOAT, [3]))
    made = ir.from_proto(before)
    Float64()(made)
    after = ir.to_proto(made)
    assert [value.name for value in after.graph.output] == ["y", "w"]
    assert [(t.name, t.data_type) for t in after.graph.initializer] == [("w", TensorProto.DOUBLE)]


def test_weights_beyond_float16_become_its_ends(tmp_path: Path) -> None:
    values = [1e6, -3e38, 65519.0, np.inf, -np.inf, np.nan, 1e-7, -1e-9]
    before = model([node("Mul", ["x", "w"], ["y"])], [held("w", np.reshape(values, (8, 1, 1, 1)))])
    after = converted(before, tmp_path, "float16")
    got = numpy_helper.to_array(after.graph.initializer[0]).ravel()
    expected = [65504, -65504, 65504, np.inf, -np.inf, np.nan, np.float16(1e-7), -0.0]
    np.testing.assert_array_equal(got, np.array(expected, np.float16))
    assert np.signbit(got[-1])


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16])
@given(value=st.floats(width=32))
def test_rounding_is_to_the_nearest_finite_value(dtype: ir.DataType, value: float) -> None:
    array = np.array([value], np.float32)
    (got,) = rounded(array, dtype).astype(np.float64)
    most = float(ml_dtypes.finfo(dtype.numpy()).max)
    if not np.isfinite(value):
        np.testing.assert_equal(got, value)
        return
    bits = rounded(array, dtype).view(np.int16).astype(np.int32)
    around = [(bits + step).astype(np.int16).view(dtype.numpy()).astype(float) for step in (-1, 1)]
    distances = [abs(float(near[0]) - value) for near in around if np.isfinite(near[0])]
    assert abs(got) <= most
    assert abs(got - value) <= min(distances)
    assert np.signbit(got) == np.signbit(value)


def test_tensors_beside_the_graph_are_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    onnx.save(
        model(nodes, [weight("w", 5, 6000)]), path, save_as_external_data=True, location="w.data"
    )
    size = (tmp_path / "w.data").stat().st_size
    before = run(onnx.load(path))
    apply(["float16"], path)
    assert (tmp_path / "w.data").stat().st_size == size / 2
    np.testing.assert_allclose(run(onnx.load(path)), before, rtol=1e-2, atol=1e-2)


def test_a_file_that_nothing_reads_any_more_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    made = model([node("MatMul", ["x", "w"], ["y"])], [weight("w", 5, 20)])
    onnx.save(made, path, save_as_external_data=True, location="w.data", size_threshold=0)
    before = onnx.load(path)
    apply(["float16"], path)
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
    near(onnx.load(path), before, "float16")
