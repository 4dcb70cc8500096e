"""Cropping and flipping a batch: what each image can become, and that it is drawn anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.core.errors import UsageError
from toolkit.data.augment import PADDING, STEPS, augmented
from toolkit.data.base import Split
from toolkit.trainers.base import Epoch

ROWS = 300


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, 3, 8, 10)).astype(np.float32)


def run(images: np.ndarray, *steps: str, seed: int = 0) -> np.ndarray:
    return augmented(images, steps, np.random.default_rng(seed))


def windows(image: np.ndarray) -> dict[bytes, tuple[int, int]]:
    """Every window of the padded image, by its values."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (PADDING, PADDING), (PADDING, PADDING)))
    return {
        padded[:, top : top + height, left : left + width].tobytes(): (top, left)
        for top in range(2 * PADDING + 1)
        for left in range(2 * PADDING + 1)
    }


def test_a_crop_is_one_of_the_81_windows_each_about_as_often(images: np.ndarray):
    many = np.concatenate([images] * 30)
    found = run(many, "crop")
    places = [windows(image) for image in images]
    counts = np.zeros((2 * PADDING + 1, 2 * PADDING + 1), int)
    for row, crop in enumerate(found):
        counts[places[row % ROWS][crop.tobytes()]] += 1
    expected = len(many) / counts.size
    assert counts.min() > expected - 5 * expected**0.5
    assert counts.max() < expected + 5 * expected**0.5


def test_channels_move_together_and_images_apart(images: np.ndarray):
    one = np.repeat(images[:1, :1], 3, axis=1)
    found = run(np.concatenate([one] * ROWS), "crop")
    assert np.array_equal(found[:, 0], found[:, 2])
    assert len({image.tobytes() for image in found}) > 60


def test_a_flip_exchanges_left_and_right_of_about_half(images: np.ndarray):
    found = run(images, "flip")
    flipped = [
        np.array_equal(one, image[..., ::-1]) for one, image in zip(found, images, strict=True)
    ]
    same = [np.array_equal(one, image) for one, image in zip(found, images, strict=True)]
    assert np.logical_xor(flipped, same).all()
    assert 0.4 < np.mean(flipped) < 0.6


@pytest.mark.parametrize("steps", [("crop",), ("flip",), ("crop", "flip")])
def test_arrays_are_new_contiguous_and_of_the_same_kind(images: np.ndarray, steps: tuple[str, ...]):
    before = images.copy()
    found = run(images, *steps)
    assert np.array_equal(images, before)
    assert not np.shares_memory(found, images)
    assert (found.shape, found.dtype, found.flags.c_contiguous) == (images.shape, np.float32, True)
    assert found.flags.writeable


def test_the_same_state_gives_the_same_images_and_another_does_not(images: np.ndarray):
    assert np.array_equal(run(images, "crop", "flip"), run(images, "crop", "flip"))
    assert not np.array_equal(run(images, "crop"), run(images, "crop", seed=1))


def test_steps_are_taken_in_turn(images: np.ndarray):
    rng = np.random.default_rng(0)
    expected = STEPS["flip"](STEPS["crop"](images, rng), rng)
    assert np.array_equal(run(images, "crop", "flip"), expected)


def test_no_steps_leave_rows_of_any_shape_as_they_are():
    rows = np.ones((4, 8), np.float32)
    assert augmented(rows, (), np.random.default_rng(0)) is rows


def test_rows_that_are_no_images_are_refused():
    with pytest.raises(UsageError, match="crop, flip"):
        run(np.ones((4, 8), np.float32), "crop", "flip")


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from([np.float32, np.float64, np.uint8]),
    data=st.data(),
)
def test_a_crop_of_any_shape_and_dtype_is_a_window(
    shape: tuple[int, ...], dtype: type, data: st.DataObject
):
    seed = data.draw(st.integers(0, 99))
    images = np.random.default_rng(seed).integers(1, 200, shape).astype(dtype)
    for image, crop in zip(images, run(images, "crop", seed=seed), strict=True):
        assert crop.tobytes() in windows(image)


def test_an_epoch_s_batches_are_augmented_apart_and_its_rows_are_not(images: np.ndarray):
    split = Split(inputs=images, targets=np.arange(ROWS))
    before = images.copy()
    epoch = Epoch(number=0, seed=3, batch=64, order=np.arange(ROWS)[::-1], rates=np.ones(5),
                  augmentation=("crop", "flip"))  # fmt: skip
    first, again = (list(epoch.batches(split)) for _ in range(2))
    assert [len(batch) for batch in first] == [64, 64, 64, 64, 44]
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.inputs, other.inputs)
    assert np.array_equal(np.concatenate([b.targets for b in first]), epoch.order)
    assert np.array_equal(images, before)
    for batch in first:
        for crop, row in zip(batch.inputs, batch.targets, strict=True):
            whole = windows(images[row])
            assert crop.tobytes() in whole or crop[..., ::-1].tobytes() in whole
