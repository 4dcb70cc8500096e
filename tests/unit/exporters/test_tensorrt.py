"""The exporter of TensorRT on doubles: what it asks of a GPU, keeps and records.

Nothing here has run on a GPU; what parser and builder do with graphs is in test_tensorrt_rtx.py."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from exporters.base import ExportOptions
from exporters.proof.weight_parity import compare
from tests.unit.exporters.test_tensorrt_rtx import W, saved
from toolkit.core.engines import ENGINE, GRAPH, EngineRecord
from toolkit.core.errors import UnavailableError, UsageError
from toolkit.core.nvidia import Driver, Gpu
from toolkit.sources.resolve import open_artifact

GPU = Gpu(name="NVIDIA GeForce RTX 4090 (24 GB)", capability=89, memory_bytes=1 << 34)
FILE = "tensorrt-NVIDIA-GeForce-RTX-4090-24-GB-89-10.16.1.11.bin"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """exporters.tensorrt.standard, imported with the double, on a machine with a GPU."""
    pytest.importorskip("tensorrt_rtx")
    from tests.doubles import tensorrt_builder_double

    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_builder_double)
    monkeypatch.delitem(sys.modules, "exporters.tensorrt.standard", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module = importlib.import_module("exporters.tensorrt.standard")
    monkeypatch.setattr(module, "driver", lambda: Driver(version="13.0", gpus=(GPU,)))
    yield module
    sys.modules.pop("exporters.tensorrt.standard", None)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where the timings of that GPU lie."""
    return tmp_path / "cache" / "inference-toolkit" / "timing-caches" / FILE


def exported(exporter: ModuleType, place: Path, options: ExportOptions | None = None) -> Path:
    """The directory of an engine."""
    out = place / f"out{len(list(place.iterdir()))}"
    out.mkdir()
    exporter.TensorRt().export(open_artifact(saved(place)), out, options or ExportOptions())
    return out


def test_an_engine_is_for_the_gpu_that_it_is_built_on(exporter: ModuleType, tmp_path: Path) -> None:
    out = exported(exporter, tmp_path, ExportOptions(batches=(2, 4, 16)))
    record = EngineRecord.load(out)
    assert (record.library, record.version) == ("tensorrt", "10.16.1.11")
    assert (record.gpu, record.compute_capabilities) == (GPU.name, (89,))
    assert (record.batches, record.tf32) == ((2, 4, 16), False)
    assert set(record.files) == {ENGINE, GRAPH}
    found = exporter.TensorRtTensors().stored_tensors(out / ENGINE)
    assert compare({"w": W}, found).passed
    assert exporter.TensorRtTensors().operators(out / ENGINE) == {"MATRIX_MULTIPLY": 1}


def test_tf32_is_off_and_layers_can_be_told_apart(exporter: ModuleType, tmp_path: Path) -> None:
    from tests.doubles.tensorrt_builder_double import (
        BuilderFlag,
        FakeBuilderConfig,
        ProfilingVerbosity,
    )

    exported(exporter, tmp_path)
    config = FakeBuilderConfig.last
    assert not config.get_flag(BuilderFlag.TF32)
    assert config.profiling_verbosity == ProfilingVerbosity.DETAILED
    assert config.num_optimization_profiles == 1


def test_timings_are_kept_for_the_next_build(
    exporter: ModuleType, tmp_path: Path, kept: Path
) -> None:
    from tests.doubles.tensorrt_builder_double import MAGIC, FakeBuilderConfig

    exported(exporter, tmp_path)
    assert FakeBuilderConfig.last.given == [b""]
    assert kept.read_bytes().endswith(MAGIC + b" and one more build")
    exported(exporter, tmp_path)
    assert FakeBuilderConfig.last.given == [MAGIC + b" and one more build"]
    assert kept.read_bytes().endswith(MAGIC + b" and one more build" * 2)


@pytest.mark.parametrize("damage", ["cut", "altered", "empty", "strange", "of another GPU"])
def test_damaged_timings_are_ignored_and_replaced(
    exporter: ModuleType, tmp_path: Path, kept: Path, damage: str
) -> None:
    from tests.doubles.tensorrt_builder_double import MAGIC, FakeBuilderConfig

    exported(exporter, tmp_path)
    whole = kept.read_bytes()
    if damage in ("strange", "of another GPU"):  # whole, but not what TensorRT takes
        content = b"what is this" if damage == "strange" else MAGIC + b" of another GPU"
        FakeBuilderConfig.last.cache.data = content
        exporter.TimingCache.of(GPU, exporter.trt.__version__).keep(FakeBuilderConfig.last)
    else:
        altered = {"cut": whole[:-3], "altered": whole[:-1] + b"D", "empty": b""}
        kept.write_bytes(altered[damage])
    exported(exporter, tmp_path)
    assert FakeBuilderConfig.last.given[-1] == b""
    assert kept.read_bytes() == whole


def test_another_gpu_or_version_has_timings_of_its_own(exporter: ModuleType) -> None:
    paths = {
        exporter.TimingCache.of(gpu, version).path
        for gpu in (GPU, Gpu(name="NVIDIA L4", capability=89, memory_bytes=1 << 34))
        for version in ("10.16.1.11", "11.4.0.106")
    }
    assert len(paths) == 4


def test_without_a_gpu_it_is_unavailable_and_says_what_to_do(
    exporter: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "driver", lambda: Driver(reason="no NVIDIA driver: none"))
    with pytest.raises(
        UnavailableError, match="on the GPU that it is for, and no NVIDIA"
    ) as caught:
        exported(exporter, tmp_path)
    assert "nvidia-smi" in caught.value.hint
    assert "tensorrt-rtx" in caught.value.hint


def test_a_library_that_does_not_start_says_why(
    exporter: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(log: object) -> None:
        log.log(exporter.trt.ILogger.ERROR, "CUDA initialization failure with error: 35")  # type: ignore[attr-defined]
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(exporter.trt, "Builder", none)
    with pytest.raises(UnavailableError, match=r"could not start: CUDA initialization failure"):
        exported(exporter, tmp_path)


def test_a_fixed_batch_takes_no_batches(exporter: ModuleType, tmp_path: Path) -> None:
    source = open_artifact(saved(tmp_path, takes=(4, 8), gives=(4, 8)))
    with pytest.raises(UsageError, match="one batch only"):
        exporter.TensorRt().export(source, tmp_path, ExportOptions(batches=(1, 2, 3)))


def test_without_the_package_its_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['tensorrt'] = None\n"
        "from exporters import EXPORTERS, READERS\n"
        "from toolkit.core.errors import UnavailableError\n"
        "for make in (EXPORTERS, READERS):\n"
        "    try: make.create('tensorrt')\n"
        "    except UnavailableError as error: print(error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    hints = done.stdout.splitlines()
    assert len(hints) == 2
    for hint in hints:
        assert hint.startswith("Install what it needs: pip install 'inference-toolkit[gpu]'")
