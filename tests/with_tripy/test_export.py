"""What an export to Tripy writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlir_tensorrt.compiler.api as compiler
import numpy as np
import nvtripy as tp
import pytest
from mlir_tensorrt.runtime.api import MTRTException

from exporters.base import ExportOptions
from exporters.proof.weight_parity import compare
from exporters.tripy_file import EXECUTABLE, TripyTensors
from exporters.tripy_module import TripyModule
from models.tripy import base
from tests.with_tripy.twins import Twins
from toolkit.core.artifact import PROGRAM, Artifact, Checkpoint, Format
from toolkit.core.documents import read_document
from toolkit.core.errors import SourceError
from toolkit.core.files import FileRecord

TWINS = Twins("mlp")


def checkpoint_of(twins: Twins, place: Path) -> Artifact:
    place.mkdir()
    return Checkpoint.save(
        place, spec=twins.spec, weights=twins.weights, seed=0, epoch=0, metrics={}, training={}
    ).artifact()


def exported(twins: Twins, place: Path, options: ExportOptions | None = None) -> Artifact:
    source = checkpoint_of(twins, place / "checkpoint")
    out = place / "out"
    out.mkdir()
    done = TripyModule().export(source, out, options or ExportOptions())
    return Artifact.save(
        out,
        model=source.model,
        format=Format.TRIPY,
        precision=done.precision,
        signature=source.signature,
        entry=done.entry,
        parents=(),
        options=done.options,
    )


def test_the_weights_are_those_that_the_module_holds(tmp_path: Path) -> None:
    twins = Twins("resnet20")
    artifact = exported(twins, tmp_path)
    stored = TripyTensors().stored_tensors(artifact.path)
    parity = compare(twins.weights, stored)
    assert parity.passed
    assert {tensor.match.value for tensor in parity.tensors} == {"identical"}
    assert parity.total == sum(not n.endswith("num_batches_tracked") for n in twins.weights)
    readers = {tensor.name: tensor.readers for tensor in stored}
    assert readers["stages.1.0.bn2.running_var"] == ("stages.1.0.bn2",)


def test_a_module_that_holds_another_weight_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def altered(module: Any, arrays: dict[str, np.ndarray]) -> None:
        own(module, {n: a + 1e-6 if n == "fc1.bias" else a for n, a in arrays.items()})

    own = base._load
    monkeypatch.setattr(base, "_load", altered)
    artifact = exported(TWINS, tmp_path)
    parity = compare(TWINS.weights, TripyTensors().stored_tensors(artifact.path))
    assert [tensor.name for tensor in parity.failures()] == ["fc1.bias"]


@pytest.mark.parametrize(("asked", "used"), [(None, [1, 8, 64]), ((2, 4, 16), [2, 4, 16])])
def test_it_says_what_it_was_compiled_for(
    tmp_path: Path, asked: tuple[int, ...] | None, used: list[int]
) -> None:
    artifact = exported(TWINS, tmp_path, ExportOptions(batches=asked))
    document = read_document(artifact.directory / "tripy.json", "toolkit.tripy/1")
    for told in (artifact.options, document):
        assert list(told["batches"]) == used
        assert told["nvtripy"] == tp.__version__
        assert told["tensorrt"] == "10.15.0+double"
    (info,) = tp.Executable.load(str(artifact.directory / EXECUTABLE)).input_infos.values()
    bounds = info.shape_bounds
    assert [shape[0] for shape in (bounds.min, bounds.opt, bounds.max)] == used


def test_what_tripy_does_not_compile_is_told_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> None:
        raise MTRTException("InternalError: no CUDA-capable device is detected")

    monkeypatch.setattr(compiler, "translate_mlir_to_executable", refuse)
    with pytest.raises(SourceError, match="no CUDA-capable device is detected") as caught:
        exported(TWINS, tmp_path)
    assert "\x1b" not in caught.value.problem
    assert "GPU of this machine" in (caught.value.hint or "")


def test_a_user_s_own_program_is_refused(tmp_path: Path) -> None:
    source = checkpoint_of(TWINS, tmp_path / "checkpoint")
    own = dict(source.files) | {PROGRAM: FileRecord(digest="sha256:0", size_bytes=0)}
    with pytest.raises(SourceError, match="a user model"):
        TripyModule().export(_with(source, own), tmp_path, ExportOptions())


def _with(source: Artifact, files: dict[str, FileRecord]) -> Artifact:
    return Artifact(**{**vars(source), "files": files})
