"""Normalisation of uint8 images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RAW_MAXIMUM = 255.0


def normalised(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return (value / 255 - mean) / std of uint8 images [N, C, H, W] as float32.

    `mean` and `std` have one value per channel. Each channel is mapped via a table of 256 values.
    """
    rows = np.empty(images.shape, np.float32)
    values = np.arange(256) / RAW_MAXIMUM
    for channel, (middle, spread) in enumerate(zip(mean, std, strict=True)):
        table = ((values - middle) / spread).astype(np.float32)
        rows[:, channel] = table[images[:, channel]]
    return rows
