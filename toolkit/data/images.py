"""Grey values of 0 to 255 as the numbers that a network takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RAW_MAXIMUM = 255.0


def normalised(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(value / 255 - mean) / std of uint8 images [N, C, H, W], as float32; one pass a channel."""
    rows = np.empty(images.shape, np.float32)
    values = np.arange(256) / RAW_MAXIMUM
    for channel, (middle, spread) in enumerate(zip(mean, std, strict=True)):
        table = ((values - middle) / spread).astype(np.float32)
        rows[:, channel] = table[images[:, channel]]
    return rows
