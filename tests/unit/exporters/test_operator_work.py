"""What operators count that are no matrix products, by hand."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from exporters.analysis.operation_counts import count_work
from exporters.analysis.operator_costs import MOVES, PRODUCTS, STEPS, WHOLE
from tests.unit.exporters.onnx_models import Shapes, save


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


OTHERS = [
    (helper.make_node("Relu", ["x"], ["y"]), {"x": (2, 3)}, 6),
    (helper.make_node("Add", ["x", "z"], ["y"]), {"x": (2, 1), "z": (3,)}, 6),
    (helper.make_node("Sum", ["x", "z", "x"], ["y"]), {"x": (2, 3), "z": (3,)}, 12),
    (helper.make_node("ReduceMax", ["x"], ["y"]), {"x": (2, 3)}, 6),
    (helper.make_node("Softmax", ["x"], ["y"]), {"x": (2, 3)}, 30),
    (helper.make_node("GlobalAveragePool", ["x"], ["y"]), {"x": (2, 3, 4, 5)}, 120),
    (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 3]), {"x": (1, 2, 4, 4)}, 72),
    (helper.make_node("Transpose", ["x"], ["y"]), {"x": (2, 3)}, 0),
    (helper.make_node("LayerNormalization", ["x", "s"], ["y"]), {"x": (2, 3), "s": (3,)}, 42),
    (helper.make_node("Gemm", ["x", "w", "b"], ["y"]), {"x": (2, 3), "w": (3, 5), "b": (5,)}, 10),
]


@pytest.mark.parametrize(("node", "shapes", "expected"), OTHERS)
def test_other_operations(path: Path, node: onnx.NodeProto, shapes: Shapes, expected: int) -> None:
    save(path, [node], shapes)
    work = count_work(path, shapes)
    assert (work.other_operations, work.lower_bound) == (expected, False)


@pytest.mark.parametrize(("mode", "expected"), [("nearest", 0), ("linear", 256), ("cubic", 1024)])
def test_resizing_takes_its_neighbours(path: Path, mode: str, expected: int) -> None:
    """[1, 2, 2, 4] to [1, 2, 4, 4]... along two axes."""
    scales = helper.make_node("Constant", [], ["s"], value_floats=[1.0, 1.0, 2.0, 2.0])
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], mode=mode)
    save(path, [scales, node], {"x": (1, 2, 2, 2)})
    assert count_work(path, {"x": (1, 2, 2, 2)}).other_operations == expected


def test_the_tables_name_operators_that_exist_and_none_twice() -> None:
    names = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    tables = [set(MOVES), set(STEPS), set(WHOLE), set(PRODUCTS)]
    assert set().union(*tables) <= names
    assert sum(map(len, tables)) == len(set().union(*tables))
