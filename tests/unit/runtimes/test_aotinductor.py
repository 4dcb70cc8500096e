"""The runtime of compiled packages: what it runs, what it needs, and what it refuses."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch._inductor.cpp_builder

from models.torch.package import LIBRARY, Package
from runtimes.torch import aotinductor
from runtimes.torch.aotinductor import AotInductor
from tests.conftest import Exported
from toolkit.core.artifact import Artifact
from toolkit.core.errors import SourceError, UnknownNameError, UsageError
from toolkit.core.files import record_files
from toolkit.core.session import SessionOptions


@pytest.fixture(scope="module")
def artifact(exported: Exported) -> Artifact:
    return Artifact.load(exported("aotinductor"))


def rows(batch: int) -> dict[str, np.ndarray]:
    return {"input": np.random.default_rng(0).random((batch, 3, 32, 32), np.float32)}


def test_kernels_and_calls_that_the_trace_does_not_show_are_named(artifact: Artifact) -> None:
    with AotInductor().open(artifact, SessionOptions()) as session:
        session.run(rows(2))
        found = session.provenance()
    nodes = [(node["operator"], node["dtype"]) for node in found.details["nodes"]]
    assert nodes.count(("aten::addmm_out", "float32")) == 3
    assert sum("convolution" in name and name.startswith("aten::") for name, _ in nodes) == 2
    assert any(name.startswith("cpp_fused_") and "max_pool" in name for name, _ in nodes)
    assert found.details["parameter_dtypes"] == ["float32"]


def test_a_buffer_that_is_used_again_keeps_its_dtype() -> None:
    text = """
void AOTInductorModel::run_impl(
    aoti_torch_empty_strided(2, int_array_0, int_array_1, cached_torch_dtype_float16, cached_torch_\
device_type_cpu, this->device_idx_, &buf3_handle);
    auto buf9 = std::move(buf3);  // reuse
    CHECK(aoti_torch_cpu_mm_out(wrap(view(buf9, 2)), arg0_1, fc_weight));
    CHECK(aoti_torch_cpu_mm_out(buf4, arg0_1, fc_weight));
} // AOTInductorModel::run_impl
"""
    package = Package(path=Path("model.pt2"), library=b"", wrapper=text, metadata={})
    assert package.calls_with_out() == [("mm_out", "float16"), ("mm_out", None)]


def test_it_needs_no_compiler(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> str:
        raise AssertionError("a compiler was asked for")

    monkeypatch.setattr(torch._inductor.cpp_builder, "get_cpp_compiler", none)
    monkeypatch.setattr(torch._inductor.cpp_builder, "cpp_compiler_search", none)
    monkeypatch.setenv("PATH", "")
    with AotInductor().open(artifact, SessionOptions()) as session:
        assert session.run(rows(1))["logits"].shape == (1, 10)


def test_nothing_is_left_on_the_disk(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even of a process that is killed while its session is open."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # as the loader, which is C++, has it
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with AotInductor().open(artifact, SessionOptions()) as session:
        assert not list(tmp_path.iterdir())
        assert session.run(rows(1))["logits"].shape == (1, 10)


def test_another_cpu_is_refused_before_it_crashes(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = [*artifact.options["cpu_features"], "avx1024_f"]
    other = replace(artifact, options={**artifact.options, "cpu_features": features})
    with pytest.raises(SourceError, match="avx1024_f"):
        AotInductor().open(other, SessionOptions())
    monkeypatch.setattr(aotinductor.platform, "machine", lambda: "riscv64")
    with pytest.raises(SourceError, match="this is riscv64"):
        AotInductor().open(artifact, SessionOptions())


def test_a_library_that_cannot_be_loaded_is_a_bad_source(
    artifact: Artifact, tmp_path: Path
) -> None:
    """Though its digest is what the manifest says."""
    copy = tmp_path / "copy"
    shutil.copytree(artifact.directory, copy)
    with zipfile.ZipFile(artifact.path) as old, zipfile.ZipFile(copy / artifact.entry, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"no library" if name.endswith(LIBRARY) else old.read(name))
    files = record_files(copy)
    with pytest.raises(SourceError, match="could not load"):
        AotInductor().open(replace(artifact, directory=copy, files=files), SessionOptions())


def test_it_has_no_options_of_its_own(artifact: Artifact) -> None:
    with pytest.raises(UnknownNameError, match="option of aotinductor"):
        AotInductor().open(artifact, SessionOptions(tuning={"threads": "2"}))
    with pytest.raises(UsageError, match="without optimisation"):
        AotInductor().open(artifact, SessionOptions(optimize=False))
