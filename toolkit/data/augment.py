"""Random augmentation of batches of training images.

A step maps images [N, C, H, W] float32 and a random generator to images of the same shape. The
result only depends on the images and the state of the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from toolkit.core.errors import UsageError

PADDING = 4

Step = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def augmented(images: np.ndarray, steps: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Apply the named steps in order. Raises UsageError if the samples are not images."""
    if steps and images.ndim != 4:
        raise UsageError(
            f"Rows of shape {list(images.shape[1:])} cannot be augmented by {', '.join(steps)}.",
            hint="Give --augment none, or a data set of images.",
        )
    for step in steps:
        images = STEPS[step](images, rng)
    return images


def _crop(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pad each image by PADDING zeros on all sides, and crop it at random to its original size.

    A line of an image is copied as one element, which is faster than one value or one image at a
    time.
    """
    count, channels, height, width = images.shape
    top, left = rng.integers(0, 2 * PADDING + 1, (2, count))[:, :, None, None]
    tall, wide = height + 2 * PADDING, width + 2 * PADDING
    padded = np.zeros((count, channels, tall, wide), images.dtype)
    padded[:, :, PADDING:-PADDING, PADDING:-PADDING] = images
    lines = np.ndarray(
        padded.size - width + 1,  # a line can start at every value
        dtype=(np.void, width * images.itemsize),
        buffer=padded,
        strides=(images.itemsize,),
    )
    planes = np.arange(count * channels).reshape(count, channels, 1)
    starts = (planes * tall + np.arange(height) + top) * wide + left
    moved: np.ndarray = lines[starts]
    return moved.view(images.dtype).reshape(images.shape)


def _flip(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror each image horizontally with probability 0.5."""
    chosen = rng.random(len(images)) < 0.5
    flipped = images.copy()
    flipped[chosen] = images[chosen][..., ::-1]
    return flipped


STEPS: Mapping[str, Step] = {"crop": _crop, "flip": _flip}
