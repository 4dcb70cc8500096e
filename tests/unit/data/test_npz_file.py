"""The user's own arrays: the rows as they are, or an error that says which array is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.core.errors import UsageError
from toolkit.core.specs import Task, TaskKind
from toolkit.data import load_splits
from toolkit.data.base import Splits

RNG = np.random.default_rng(0)
INPUTS = RNG.standard_normal((20, 3, 8, 8))
CLASSES = np.arange(20) % 4
VALUES = RNG.standard_normal(20)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "rows.npz"


def load(path: Path, **arrays: Any) -> Splits:
    np.savez(path, **arrays)
    return load_splits(str(path))


def test_whole_numbers_are_classes(place: Path):
    splits = load(place, inputs=INPUTS, targets=CLASSES.astype(np.uint8))
    assert splits.task == Task(kind=TaskKind.CLASSIFICATION, input_shape=(3, 8, 8), outputs=4)
    assert (len(splits.train), len(splits.test)) == (16, 4)
    by_row = {row.tobytes(): label for row, label in zip(np.float32(INPUTS), CLASSES, strict=True)}
    for split in (splits.train, splits.test):
        assert split.inputs.dtype == np.float32
        assert split.inputs.flags.c_contiguous
        assert [by_row.pop(row.tobytes()) for row in split.inputs] == split.targets.tolist()
    assert not by_row


@pytest.mark.parametrize(("targets", "outputs"), [(VALUES, 1), (np.stack([VALUES] * 3, axis=1), 3)])
def test_floats_are_values(place: Path, targets: np.ndarray, outputs: int):
    splits = load(place, inputs=INPUTS[:, 0, 0], targets=targets)
    assert splits.task == Task(kind=TaskKind.REGRESSION, input_shape=(8,), outputs=outputs)
    assert splits.train.targets.shape == (16, outputs)
    assert splits.train.targets.dtype == np.float32


def test_test_rows_of_one_s_own_stay_apart_and_in_order(place: Path):
    splits = load(place, inputs=INPUTS, targets=CLASSES, test_inputs=INPUTS[:3] + 1,
                  test_targets=np.array([0, 6, 2]))  # fmt: skip
    assert np.array_equal(splits.train.inputs, np.float32(INPUTS))
    assert np.array_equal(splits.test.inputs, np.float32(INPUTS[:3] + 1))
    assert splits.task.outputs == 7
    assert "split_seed" not in splits.preprocessing


def with_one(value: float) -> np.ndarray:
    array = INPUTS.copy()
    array[7, 2, 1, 5] = value
    return array


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"inputs": INPUTS}, "it has the arrays ['inputs']"),
        ({"x": INPUTS, "y": VALUES}, "it has the arrays ['x', 'y']"),
        ({"inputs": INPUTS, "targets": VALUES, "test_inputs": INPUTS}, "expected ['inputs', 'tar"),
        ({"inputs": INPUTS, "targets": VALUES[:-1]}, "inputs has 20 rows, targets has 19"),
        ({"inputs": VALUES, "targets": VALUES}, "inputs has shape [20]"),
        ({"inputs": INPUTS, "targets": CLASSES[:, None]}, "targets is int64 of shape [20, 1]"),
        ({"inputs": INPUTS, "targets": np.float64(1)}, "targets is float64 of shape []"),
        ({"inputs": INPUTS[:4], "targets": VALUES[:4]}, "inputs has 4 rows, expected at least 5"),
        ({"inputs": INPUTS, "targets": CLASSES - 2}, "targets has class -2 in row 0"),
        ({"inputs": with_one(np.nan), "targets": VALUES}, "inputs has nan in row 7, at [2, 1, 5]"),
        ({"inputs": with_one(1e39), "targets": VALUES}, "inputs has 1e+39 in row 7"),
        ({"inputs": INPUTS, "targets": np.where(CLASSES == 1, np.nan, 1)}, "has nan in row 1, exp"),
        ({"inputs": INPUTS.astype(complex), "targets": VALUES}, "inputs has dtype complex128"),
        ({"inputs": INPUTS.astype(str), "targets": VALUES}, "inputs has dtype <U"),
        ({"inputs": INPUTS, "targets": CLASSES.astype(str)}, "targets has dtype <U"),
        ({"inputs": INPUTS, "targets": VALUES.astype(object)}, "Object arrays"),
        ({"inputs": INPUTS, "targets": VALUES, "test_inputs": INPUTS[:, :2],
          "test_targets": VALUES}, "test_inputs has rows of shape [2, 8, 8]"),
        ({"inputs": INPUTS, "targets": VALUES, "test_inputs": INPUTS,
          "test_targets": CLASSES}, "test_targets has rows of shape []"),
        ({"inputs": INPUTS, "targets": VALUES, "test_inputs": INPUTS[:0],
          "test_targets": VALUES[:0]}, "test_inputs has 0 rows"),
    ],
)  # fmt: skip
def test_arrays_that_cannot_be_trained_on_are_refused(
    place: Path, arrays: dict[str, np.ndarray], said: str
):
    with pytest.raises(UsageError) as caught:
        load(place, **arrays)
    assert said in caught.value.problem
    assert str(place) in caught.value.problem


def test_a_file_that_is_no_npz_is_refused(place: Path):
    np.savez(place, inputs=INPUTS, targets=VALUES)
    whole = place.read_bytes()
    np.save(place.with_suffix(".npy"), INPUTS)
    for content in (b"", b"text", whole[:500], whole[: len(whole) // 2],
                    place.with_suffix(".npy").read_bytes(), b"\x80\x04K\x01."):  # fmt: skip
        place.write_bytes(content)
        with pytest.raises(UsageError, match=r"np\.savez"):
            load_splits(str(place))


def test_a_model_of_another_shape_is_refused(place: Path):
    load(place, inputs=INPUTS, targets=CLASSES)
    with pytest.raises(UsageError, match=r"3 x 32 x 32; .* gives 3 x 8 x 8"):
        load_splits(str(place), shape=(3, 32, 32))
