"""The driver that is not here, and packages that exclude each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.core.nvidia import available, conflict_of, conflicts, driver


def install(site: Path, **versions: str) -> None:
    """Distributions that are nothing but their metadata."""
    for name, version in versions.items():
        info = site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that is installed."""
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    return tmp_path


def test_without_a_driver_the_reason_is_told_and_what_to_do() -> None:
    found = available("1.2.3")
    if driver().gpus:
        assert found.ok
    else:
        assert not found.ok
        assert found.version == "1.2.3"
        assert "NVIDIA driver" in str(found.reason)
        assert "nvidia-smi" in str(found.hint)


def test_an_environment_of_one_kind_has_no_conflict(site: Path) -> None:
    install(site, onnxruntime_gpu="1.31.1", tensorrt_cu13="11.4.0.106")
    assert list(conflicts()) == []
    assert conflict_of("onnxruntime-cuda", "1.31.1") is None


def test_both_builds_of_onnx_runtime_are_refused(site: Path) -> None:
    install(site, onnxruntime="1.31.1", onnxruntime_gpu="1.30.0")
    found = conflict_of("onnxruntime-cuda", "1.31.1")
    assert found is not None
    assert not found.ok
    assert "onnxruntime 1.31.1 and onnxruntime-gpu 1.30.0 are both installed" in str(found.reason)
    assert "pip uninstall" in str(found.hint)
    assert conflict_of("tensorrt", None) is None


@pytest.mark.parametrize(("version", "fits"), [("10.16.1.11", True), ("11.4.0.106", False)])
def test_tripy_wants_tensorrt_10(site: Path, version: str, fits: bool) -> None:
    install(site, nvtripy="0.1.7", tensorrt_cu12=version)
    found = conflict_of("tripy", "0.1.7")
    assert (found is None) is fits
    if found is not None:
        assert f"TensorRT {version} is installed" in str(found.reason)
        assert "docs/gpu.md" in str(found.hint)
