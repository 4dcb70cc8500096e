"""Which graph a row's work is counted from."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from tests.unit.exporters.onnx_models import save
from toolkit.core.artifact import Artifact, Format
from toolkit.core.specs import ModelSpec, Signature
from toolkit.sources.operation_counts import work_of

NOTHING = Signature(inputs=(), outputs=())
PRODUCT = helper.make_node("MatMul", ["a", "b"], ["y"])
SHAPES = {"a": (2, 3), "b": (3, 5)}


def artifact(directory: Path, form: Format, digest: str = "sha256:1") -> Artifact:
    return Artifact(
        model=ModelSpec(name="m", family="f", framework="none", signature=NOTHING),
        format=form,
        precision="float32",
        signature=NOTHING,
        directory=directory,
        entry="model.onnx",
        digest=digest,
        files={},
    )


def test_the_graph_among_the_forms_of_a_model_is_counted(tmp_path: Path) -> None:
    save(tmp_path / "model.onnx", [PRODUCT], SHAPES)
    forms = [artifact(tmp_path, Format.CHECKPOINT), artifact(tmp_path, Format.ONNX)]
    warnings: list[str] = []
    work = work_of(forms, SHAPES, warnings)
    assert work is not None
    assert (work.matrix_operations, warnings) == (2 * 2 * 3 * 5, [])
    wider = work_of(forms, {**SHAPES, "a": (7, 3)}, warnings)
    assert wider is not None
    assert wider.matrix_operations == 2 * 7 * 3 * 5


def test_a_checkpoint_alone_has_no_graph(tmp_path: Path) -> None:
    warnings: list[str] = []
    assert work_of([artifact(tmp_path, Format.CHECKPOINT)], SHAPES, warnings) is None
    assert warnings == []


def test_a_graph_that_cannot_be_followed_is_one_warning(tmp_path: Path) -> None:
    save(tmp_path / "model.onnx", [PRODUCT], SHAPES)
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.node[0].domain = "of.nobody"
    onnx.save(model, tmp_path / "model.onnx")
    warnings: list[str] = []
    for _ in range(2):
        assert work_of([artifact(tmp_path, Format.ONNX, "sha256:2")], SHAPES, warnings) is None
    (warning,) = warnings
    assert "model.onnx" in warning
    assert "could not be inferred" in warning
