"""The digits: the same rows every time, resized and normalised as stated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from toolkit.data import load_splits
from toolkit.data.base import Splits


@pytest.fixture(scope="session")
def splits() -> Splits:
    return load_splits("digits")


def test_shapes_dtypes_and_numbers(splits: Splits):
    assert (len(splits.train), len(splits.test)) == (1437, 360)
    for split in (splits.train, splits.test):
        assert split.inputs.shape == (len(split), *splits.task.input_shape)
        assert (split.inputs.dtype, split.targets.dtype) == (np.float32, np.int64)
        assert split.inputs.flags.c_contiguous
        assert set(split.targets.tolist()) == set(range(splits.task.outputs))


def test_every_call_gives_the_same_rows_in_the_same_order(splits: Splits):
    again = load_splits("digits")
    for name in ("train", "test"):
        first, second = getattr(splits, name), getattr(again, name)
        assert first.inputs.tobytes() == second.inputs.tobytes()
        assert first.targets.tobytes() == second.targets.tobytes()
    assert splits.preprocessing == again.preprocessing


def preprocessed_again(splits: Splits) -> np.ndarray:
    """All raw images through torch's bilinear resize, by the stated preprocessing alone."""
    stated = splits.preprocessing
    images = torch.from_numpy(load_digits().images / stated["raw_maximum"])[:, None]
    resized = torch.nn.functional.interpolate(
        images, size=stated["resize"], mode="bilinear", align_corners=False
    )
    mean, std = (torch.tensor(stated[key])[:, None, None] for key in ("mean", "std"))
    return ((resized - mean) / std).float().numpy()


def test_stated_preprocessing_makes_the_rows_from_the_raw_images(splits: Splits):
    expected = preprocessed_again(splits)
    rows = np.concatenate([splits.train.inputs, splits.test.inputs])
    targets = np.concatenate([splits.train.targets, splits.test.targets])

    def in_order(images: np.ndarray) -> np.ndarray:
        return np.lexsort(images[:, 0].reshape(len(images), -1).round(3).T)

    ours, theirs = in_order(rows), in_order(expected)
    np.testing.assert_allclose(rows[ours], expected[theirs], atol=1e-4)
    assert np.array_equal(targets[ours], load_digits().target[theirs])


def test_train_and_test_share_no_row(splits: Splits):
    train, test = ({row.tobytes() for row in s.inputs} for s in (splits.train, splits.test))
    assert not train & test


def test_classes_are_in_proportion(splits: Splits):
    train, test = (np.bincount(s.targets) / len(s) for s in (splits.train, splits.test))
    np.testing.assert_allclose(train, test, atol=0.005)


def test_training_rows_are_normal_and_test_rows_are_nearly(splits: Splits):
    assert splits.train.inputs.mean() == pytest.approx(0, abs=1e-4)
    assert splits.train.inputs.std() == pytest.approx(1, abs=1e-4)
    assert splits.test.inputs.mean() == pytest.approx(0, abs=0.05)
    assert splits.test.inputs.mean() != pytest.approx(0, abs=1e-6)


def test_channels_are_copies(splits: Splits):
    assert np.array_equal(splits.test.inputs[:, 0], splits.test.inputs[:, 1])
    assert np.array_equal(splits.test.inputs[:, 0], splits.test.inputs[:, 2])
