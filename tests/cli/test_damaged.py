"""Damaged and hostile model files: each is read, or refused with a reason, and does nothing else.

A few of each format are opened, unless `make mutants` asks for all.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Exported, Run
from tests.mutants import mutants
from toolkit.cli.main import main
from toolkit.core.memory import peak_rss_bytes, reset_peak, rss_bytes

# Keras, on its own way to NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COUNT = 200
ALL = bool(os.environ.get("ALL_MUTANTS"))
INSPECTED = COUNT if ALL else 16
EXPORTED = COUNT if ALL else 2  # of those that can be read
MOST_BYTES = 1_000_000_000  # more than before, in the process of the command line
TIMEOUT_S = 120
TARGETS = {
    "onnx": "openvino",
    "torch-export": "onnx",
    "keras": "savedmodel",
    "litert": "onnx",
    "openvino": "onnx",
}
"""What each format is exported to. Nothing is made of the last two: they are only opened."""


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """Mutants of one format: their paths, and the file that code in them would create."""

    format: str
    paths: list[Path]
    canary: Path


@pytest.fixture(scope="module", params=TARGETS)
def damaged(
    request: pytest.FixtureRequest, exported: Exported, tmp_path_factory: pytest.TempPathFactory
) -> Damaged:
    top = tmp_path_factory.mktemp("damaged")
    place = top / "a" / "b"  # ../../ leads to a place of the test's
    place.mkdir(parents=True)
    good = _keras(top) if request.param == "keras" else _entry(exported(request.param))
    canary, paths = top / "canary", []
    for name, files in mutants(good, COUNT, canary):
        for suffix, content in files.items():
            (place / name).with_suffix(suffix).write_bytes(content)
        paths.append((place / name).with_suffix(good.suffix))
    return Damaged(format=request.param, paths=paths, canary=canary)


def _entry(artifact: Path) -> Path:
    return next(path for path in artifact.glob("model.*") if path.suffix != ".bin")


def _keras(place: Path) -> Path:
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dense(3, name="head")(keras.layers.Flatten()(x))
    keras.Model(image, x).save(place / "good.keras")
    return place / "good.keras"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    code: int
    said: str
    seconds: float


def run(capsys: pytest.CaptureFixture[str], *args: object) -> Outcome:
    """Run the command line in this process."""
    sys.argv, argv = ["toolkit", *map(str, args)], sys.argv
    start = time.monotonic()
    try:
        with pytest.raises(SystemExit) as end:
            main()
    finally:
        sys.argv = argv
    return Outcome(
        code=int(end.value.code or 0),
        said=capsys.readouterr().err,
        seconds=time.monotonic() - start,
    )


@pytest.fixture
def undisturbed(damaged: Damaged, tmp_path: Path) -> Iterator[None]:
    """Check that no code ran, that nothing was written but into `tmp_path`, and the memory."""
    top = damaged.canary.parent
    before = sorted(top.rglob("*")), sorted(Path.cwd().iterdir())
    reset_peak()
    held = rss_bytes() or 0
    yield
    assert not damaged.canary.exists()
    assert (sorted(top.rglob("*")), sorted(Path.cwd().iterdir())) == before
    assert peak_rss_bytes() - held < MOST_BYTES


def test_each_is_read_or_refused(
    damaged: Damaged, undisturbed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By inspect; then by export, those that inspect has read or all."""
    found: Counter[str] = Counter()
    longest, read = 0.0, []
    for path in damaged.paths[:: COUNT // INSPECTED]:
        done = run(capsys, "inspect", path, "--timeout", TIMEOUT_S)
        _check(path, done)
        longest = max(longest, done.seconds)
        found[f"inspect {done.code}"] += 1
        if done.code == 0:
            read.append(path)
    for path in damaged.paths if ALL else read[:EXPORTED]:
        out = tmp_path / path.stem
        options = ("--to", TARGETS[damaged.format], "--timeout", TIMEOUT_S)
        done = run(capsys, "export", path, "--out", out, *options)
        _check(path, done)
        assert out.exists() == (done.code == 0), path
        longest = max(longest, done.seconds)
        found[f"export {done.code}"] += 1
    assert found["inspect 2"] + found["inspect 3"] > INSPECTED / 5
    if ALL:
        with capsys.disabled():
            print(f"\n{damaged.format}: {dict(sorted(found.items()))}, longest {longest:.1f} s")  # noqa: T201


def _check(path: Path, done: Outcome) -> None:
    assert done.code in (0, 1, 2, 3), (path, done)
    assert "Traceback" not in done.said, (path, done.said)
    assert "Nobody foresaw" not in done.said, (path, done.said)
    assert bool(done.said.strip()) or done.code == 0, path


@pytest.mark.parametrize("what", ["cut", "huge-dims", "no-such-operator"])
def test_bench_ends_in_an_error_or_a_row_with_its_reason(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path, what: str
) -> None:
    made = mutants(artifact_dir / "model.onnx", COUNT, tmp_path / "canary")
    content = next(files[".onnx"] for name, files in made if name.endswith(f"-{what}"))
    (tmp_path / "damaged.onnx").write_bytes(content)
    done = toolkit_cli("bench", "damaged.onnx", "--runs", 5)
    assert "Traceback" not in done.stderr
    assert "Unexpected error" not in done.stderr
    assert done.returncode in (0, 1, 2, 3), done.stderr
    assert {entry.name for entry in tmp_path.iterdir()} <= {"damaged.onnx", "results"}
