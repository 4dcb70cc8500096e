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
    """A window of the same size, anywhere in the image padded by PADDING zeros on each side.

    A line of a window is moved as one element: faster than a value, or an image, at a time.
    """
    count, channels, height, width = images.shape
    top, left = rng.integers(0, 2 * PADDING + 1, (2, count))[:, :, None, None]
    tall, wide = height + 2 * PADDING, width + 2 * PADDING
    padded = np.zeros((count, channels, tall, wide), images.dtype)
    padded[:, :, PADDING:-PADDING, PADDING:-PADDING] = images
    lines = np.ndarray(
        padded.size - width + 1,  # one begins at each value
        dtype=(np.void, width * images.itemsize),
        buffer=padded,
        strides=(images.itemsize,),
    )
    planes = np.arange(count * channels).reshape(count, channels, 1)
    starts = (planes * tall + np.arange(height) + top) * wide + left
    moved: np.ndarray = lines[starts]
    return moved.view(images.dtype).reshape(images.shape)


def _flip(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Left and right exchanged, with probability one half for each image."""
    chosen = rng.random(len(images)) < 0.5
    flipped = images.copy()
    flipped[chosen] = images[chosen][..., ::-1]
    return flipped


STEPS: Mapping[str, Step] = {"crop": _crop, "flip": _flip}
