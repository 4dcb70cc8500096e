"""One damaged file among many stored ones costs itself, and is named."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import run_toolkit
from toolkit.core.documents import seal
from toolkit.optimizing.search import ROUNDS

BAD = "20990101T000000Z-00000000"


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def empty(content: bytes) -> bytes:
    return b""


def newer(content: bytes) -> bytes:
    return content.replace(b"toolkit.result/3", b"toolkit.result/99")


def altered(content: bytes) -> bytes:
    return content.replace(b'"batch": 1', b'"batch": 7', 1)


def incomplete(content: bytes) -> bytes:
    return json.dumps(seal("toolkit.result/3", {"id": BAD, "rows": [{}]})).encode()


def no_object(content: bytes) -> bytes:
    return b"[1, 2]"


DAMAGES = [truncated, empty, newer, altered, incomplete, no_object]


def save_model(path: Path) -> Path:
    """Write `y = x @ table` as an ONNX file."""
    table = np.ones((8, 4), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "table"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(table, "table")],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which `results/` holds one result."""
    place = tmp_path_factory.mktemp("measured")
    model = save_model(place / "model.onnx")
    done = run_toolkit(
        "bench", model, "--runtime", "null", "--scope", "forward", "--warmup", 1, "--runs", 20,
        cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def place(measured: Path, tmp_path: Path) -> Path:
    return shutil.copytree(measured, tmp_path / "place")


def damage(place: Path, how: Sequence[Callable[[bytes], bytes]]) -> tuple[str, list[str]]:
    """Add damaged copies to the results; return the id of the good one and the names of the bad."""
    (path,) = (place / "results").glob("*.json")
    names = [f"{BAD}-{number}.json" for number in range(len(how))]
    for name, spoil in zip(names, how, strict=True):
        path.with_name(name).write_bytes(spoil(path.read_bytes()))
    return path.stem, names


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (("results", "list"), "results"),
        (("results", "query", "--sql", "SELECT result FROM rows"), "rows"),
        (("report", "results", "--out", "report.json"), None),
    ],
)
def test_every_damaged_result_is_named_and_left_out(
    command: tuple[str, ...], keys: str | None, place: Path
) -> None:
    id, names = damage(place, DAMAGES)
    done = run_toolkit(*command, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for name in names:
        assert f"warning: {name}" in done.stderr.replace("results/", "").replace(
            "Could not read ", ""
        )
        assert any(name in warning for warning in told["warnings"])
    assert len(told["warnings"]) == len(DAMAGES)
    if keys is not None:
        (one,) = told[keys]
        assert id in one.values()
    else:
        report = json.loads((place / "report.json").read_text())
        assert len(report["records"]["rows"]) == 1
        assert set(told["warnings"]) <= set(report["warnings"])


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("results", "list"), 0),
        (("results", "query", "--sql", "SELECT result FROM rows"), 2),
        (("report", "results", "--out", "report.json"), 2),
    ],
)
def test_where_nothing_can_be_read_that_is_said(
    command: tuple[str, ...], code: int, place: Path
) -> None:
    id, (name,) = damage(place, [truncated])
    (place / "results" / f"{id}.json").unlink()
    done = run_toolkit(*command, cwd=place)
    assert done.returncode == code, done.stderr
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def search(place: Path) -> subprocess.CompletedProcess[str]:
    return run_toolkit(
        "optimize", "model.onnx", "--exact", "--budget", "1s", "--out", "search", cwd=place
    )


def test_what_is_damaged_of_a_search_is_made_again(place: Path) -> None:
    first = search(place)
    assert first.returncode == 0, first.stderr
    (path,) = (place / "search" / ROUNDS / "open-1").glob("*.json")
    content = path.read_bytes()
    path.write_bytes(truncated(content))
    graph = place / "search" / "forms" / "onnx" / "model.onnx"
    graph.write_bytes(truncated(graph.read_bytes()))
    again = search(place)
    assert again.returncode == 0, again.stderr
    assert "The round open-1 is measured again" in again.stderr
    assert path.name in again.stderr
    assert "onnx is made again" in again.stderr
    (new,) = path.parent.glob("*.json")
    assert new != path
    assert path.with_suffix(".unreadable").read_bytes() == truncated(content)
    third = search(place)
    assert third.returncode == 0, third.stderr
    assert "again" not in third.stderr
    assert list(path.parent.glob("*.json")) == [new]


def test_a_second_search_in_one_directory_is_refused(place: Path) -> None:
    from toolkit.core.files import locked_directory

    with locked_directory(place / "search", "runs a search"):
        done = search(place)
    assert done.returncode == 2
    assert "Another process runs a search in search" in done.stderr
