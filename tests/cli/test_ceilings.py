"""`toolkit doctor --ceilings`: measured once, stored, shown."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

import toolkit
from tests.conftest import Run
from toolkit.cli.main import app
from toolkit.measuring.machine.roofline import INSTRUCTIONS

OURS = "inference-toolkit"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory in which the ceilings of one thread are stored."""
    place = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.environment.doctor.PEAK_SECONDS", 0.05)
        done = CliRunner(env={"XDG_CACHE_HOME": str(place)}).invoke(
            app, ["doctor", "--ceilings", "--threads", "1", "--json"]
        )
    assert done.exit_code == 0, done.stderr
    assert "measure ceilings, 1 threads 1/" in done.stderr
    (place / "report.json").write_text(done.stdout)
    return place


def test_ceilings_are_measured_stored_and_shown(toolkit_cli: Run, cache: Path) -> None:
    report = json.loads((cache / "report.json").read_text())
    (found,) = report["ceilings"]
    assert found["threads"] == 1
    assert found["copy_bytes_per_second"] > 1e8
    rates = found["operations_per_second"]
    assert rates["float32"] > 1e8
    assert {*rates, *found["absent"]} == {"float32", "bfloat16", "int8"}
    env = {"XDG_CACHE_HOME": str(cache)}
    assert json.loads(toolkit_cli("doctor", "--json", env=env).stdout)["ceilings"] == [found]
    shown = toolkit_cli("doctor", env=env).stdout
    assert f"{rates['float32'] / 1e9:,.0f} GFLOP/s" in shown
    assert found["measured"] in shown


def test_a_precision_that_the_processor_lacks_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("toolkit.environment.doctor.PEAK_SECONDS", 0.01)
    monkeypatch.setitem(INSTRUCTIONS, "bfloat16", ("none_such",))
    (found,) = toolkit.doctor(ceilings=True, threads=1).ceilings
    assert "none_such" in found.absent["bfloat16"]
    assert "bfloat16" not in found.operations_per_second


BENCH = ("--threads", 1, "--batch", 4, "--warmup", 1, "--runs", 12)


def test_rows_say_how_far_from_the_limit_they_are(
    toolkit_cli: Run, cache: Path, artifact_dir: Path
) -> None:
    """The torch row runs the checkpoint, and does the work of the same graph."""
    report = json.loads((cache / "report.json").read_text())
    peak = report["ceilings"][0]["operations_per_second"]["float32"]
    env = {"XDG_CACHE_HOME": str(cache)}
    runtimes = ("--runtime", "torch,onnxruntime,null")
    done = toolkit_cli("bench", artifact_dir, *runtimes, *BENCH, "--json", env=env)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["environment"]["ceilings"] == report["ceilings"][0]
    for row in result["rows"]:
        assert row["work"]["matrix_operations"] == 4 * 1_303_440
        forward = row["scopes"]["forward"]
        if row["runtime"] == "null":
            assert forward["operations_per_second"] is None
        else:
            rate = 4 * 1_303_440 * 1e9 / forward["median_ns"]
            assert forward["operations_per_second"] == pytest.approx(rate)
            assert forward["share_of_peak"] == pytest.approx(rate / peak)
    shown = toolkit_cli("results", "show", result["id"]).stdout
    assert "GFLOP/s" in shown
    assert "of peak" in shown
    assert "no ceilings" not in shown


def test_without_ceilings_a_line_says_how_to_get_them(
    toolkit_cli: Run, cache: Path, artifact_dir: Path
) -> None:
    args = ("bench", artifact_dir, "--runtime", "onnxruntime", *BENCH, "--threads", 2)
    env = {"XDG_CACHE_HOME": str(cache)}
    shown = toolkit_cli(*args, "--scope", "forward", env=env).stdout
    assert "GFLOP/s" in shown
    assert "of peak" not in shown
    assert "toolkit doctor --ceilings --threads 2" in shown
    assert "ceilings" not in toolkit_cli(*args, "--scope", "end_to_end", env=env).stdout


def test_a_checkpoint_has_no_graph_to_count(toolkit_cli: Run, checkpoint_dir: Path) -> None:
    args = ("bench", checkpoint_dir, "--runtime", "torch", "--scope", "forward", *BENCH)
    assert json.loads(toolkit_cli(*args, "--json").stdout)["rows"][0]["work"] is None
    shown = toolkit_cli(*args).stdout
    assert "GFLOP/s" not in shown
    assert "ceilings" not in shown


def test_what_is_not_counted_is_named(toolkit_cli: Run, tmp_path: Path) -> None:
    """Inverse is ONNX Runtime's own, and no formula of it is known here."""
    shape = [4, 4]
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["t"]),
        helper.make_node("Inverse", ["t"], ["y"], domain="com.microsoft"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 1, shape)], [value("y", 1, shape)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=opsets), tmp_path / "own.onnx")
    shown = toolkit_cli("bench", "own.onnx", "--runtime", "onnxruntime", *BENCH[:2], *BENCH[4:])
    assert "not counted: com.microsoft.Inverse (1)" in shown.stdout, shown.stderr
    assert "≥ 0." in shown.stdout


def test_nothing_is_written_unless_asked_for(toolkit_cli: Run, tmp_path: Path) -> None:
    done = toolkit_cli("doctor", env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr
    assert "toolkit doctor --ceilings" in done.stdout
    assert not (tmp_path / "cache" / OURS).exists()


def test_a_damaged_file_is_named_and_no_more(toolkit_cli: Run, cache: Path, tmp_path: Path) -> None:
    (stored,) = (cache / OURS).rglob("*.json")
    copy = tmp_path / stored.relative_to(cache)
    copy.parent.mkdir(parents=True)
    copy.write_bytes(stored.read_bytes()[:100])
    done = toolkit_cli("doctor", env={"XDG_CACHE_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert str(copy) in done.stderr
    assert "toolkit doctor --ceilings --threads 1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_is_refused_at_once(
    toolkit_cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("")
    done = toolkit_cli("doctor", "--ceilings", env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.returncode == 3
    assert "Could not store ceilings" in done.stderr
    assert "probe" not in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [(("--threads", 2), "no ceilings"), (("--ceilings", "--threads", 0), "at least 1")],
)
def test_wrong_use(toolkit_cli: Run, args: tuple, says: str) -> None:
    done = toolkit_cli("doctor", *args)
    assert done.returncode == 2
    assert says in done.stderr
