"""Which rows a model is calibrated on: the same for a seed, and never test rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import UsageError
from toolkit.core.specs import ModelSpec, Signature, TensorSpec
from toolkit.quantization.calibration_data import CalibrationRows, pick_rows

ROWS = 100


def taking(batch: int | str = "batch", names: tuple[str, ...] = ("x",)) -> Artifact:
    """A model of rows of three numbers; nothing of it is opened."""
    spec = Signature(
        inputs=tuple(TensorSpec(name=n, dtype="float32", shape=(batch, 3)) for n in names),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(batch, 2)),),
    )
    return Artifact(
        model=ModelSpec(name="m", family="onnx", framework="onnx", signature=spec),
        format=Format.ONNX,
        precision="float32",
        signature=spec,
        directory=Path(),
        entry="m.onnx",
        digest="",
        files={},
    )


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Rows and classes; the first ten training rows are test rows too."""
    rng = np.random.default_rng(0)
    inputs, test = (rng.standard_normal((n, 3)).astype(np.float32) for n in (ROWS, 30))
    test[:10] = inputs[:10]
    path = tmp_path / "rows.npz"
    np.savez(
        path,
        inputs=inputs,
        targets=np.arange(ROWS) % 2,
        test_inputs=test,
        test_targets=np.arange(30) % 2,
    )
    return path


def picked(
    data: Path, samples: int | None = None, seed: int = 0, artifact: Artifact | None = None
) -> CalibrationRows:
    return pick_rows(artifact or taking(), str(data), samples=samples, seed=seed)


def values(rows: CalibrationRows) -> np.ndarray:
    return np.concatenate([feeds["x"] for feeds in rows.used.batches(7)])


def test_none_of_them_is_a_test_row(labelled: Path) -> None:
    rows = picked(labelled)
    assert (len(rows.used), rows.left_out) == (ROWS - 10, 10)
    tested = {row.tobytes() for row in rows.held.feeds(0, 30)["x"]}
    assert len(tested) == 30
    assert tested.isdisjoint(row.tobytes() for row in values(rows))


def test_a_seed_gives_the_same_rows_and_another_others(labelled: Path) -> None:
    first, again, other = (picked(labelled, 20, seed) for seed in (0, 0, 1))
    assert np.array_equal(values(first), values(again))
    assert first.used.digest == again.used.digest
    assert first.used.digest != other.used.digest


@pytest.mark.parametrize("samples", [ROWS + 1, ROWS - 9])
def test_more_samples_than_rows(samples: int, labelled: Path) -> None:
    with pytest.raises(UsageError, match=f"Got {samples} samples, and there are "):
        picked(labelled, samples)


def test_arrays_by_the_names_of_the_inputs_are_any_rows(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    np.savez(path, a=rows, b=-rows)
    found = picked(path, 15, artifact=taking(names=("a", "b")))
    feeds = found.used.feeds(0, 15)
    assert np.array_equal(feeds["a"], -feeds["b"])
    others = found.held.feeds(0, 99)["a"]
    assert len(others) == 5
    assert {row[0] for row in others}.isdisjoint(row[0] for row in feeds["a"])
    assert found.note is not None
    assert len(picked(path, artifact=taking(names=("a", "b"))).held) == 20


def test_a_fixed_batch_takes_whole_ones(labelled: Path) -> None:
    rows = picked(labelled, artifact=taking(batch=8))
    assert (len(rows.used), len(rows.held)) == (88, 24)
    with pytest.raises(UsageError, match="runs at batch 8 only"):
        picked(labelled, 12, artifact=taking(batch=8))


def test_rows_that_cannot_be_used(tmp_path: Path, labelled: Path) -> None:
    path = tmp_path / "own.npz"
    bad = np.ones((5, 3), np.float32)
    bad[3, 1] = np.nan
    np.savez(path, x=bad)
    with pytest.raises(UsageError, match=r"Row 3 of 'x'.* has NaN"):
        picked(path)
    np.savez(path, x=np.ones((5, 4), np.float32))
    with pytest.raises(UsageError, match="do not fit the model"):
        picked(path)
    with pytest.raises(UsageError, match="gives one input"):
        picked(labelled, artifact=taking(names=("a", "b")))
    with pytest.raises(UsageError, match="Got 0 samples"):
        picked(labelled, 0)
