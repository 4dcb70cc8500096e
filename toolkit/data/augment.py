"""Random changes to training images, a batch at a time.

A step maps images [N, C, H, W] float32 and a generator to images of the same shape; the same
generator state gives the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from toolkit.core.errors import UsageError

PADDING = 4

Step = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def augmented(images: np.ndarray, steps: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """The images after each of the named steps. Raises UsageError for rows that are no images."""
    if steps and images.ndim != 4:
        raise UsageError(
            f"Rows of shape {list(images.shape[1:])} cannot be augmented by {', '.join(steps)}.",
            hint="Give --augment none, or a data set of images.",
        )
    for step in steps:
        images = STEPS[step](images, rng)
    return images


def _crop(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A window of the same size, anywhere in the image padded by PADDING zeros on each side."""
    count, _, height, width = images.shape
    edge = ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING))
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(images, edge), (height, width), axis=(2, 3)
    )
    top, left = rng.integers(0, 2 * PADDING + 1, (2, count))
    return np.ascontiguousarray(windows[np.arange(count), :, top, left])


def _flip(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Left and right exchanged, with probability one half for each image."""
    chosen = rng.random(len(images)) < 0.5
    return np.where(chosen[:, None, None, None], images[..., ::-1], images)


STEPS: Mapping[str, Step] = {"crop": _crop, "flip": _flip}
