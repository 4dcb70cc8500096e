"""Training samples in channels-last layout, for TensorFlow and JAX."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np

from toolkit.data.base import Split
from toolkit.trainers.base import Epoch


def channels_last(inputs: np.ndarray) -> np.ndarray:
    """Return images [N, C, H, W] as C-contiguous [N, H, W, C], and other inputs unchanged.

    With one channel or one pixel, the result may share memory with `inputs`.
    """
    if inputs.ndim != 4:
        return inputs
    return np.ascontiguousarray(inputs.transpose(0, 2, 3, 1))


@final
class Rows:
    """Split in the layout of the model; without augmentation it is converted only once."""

    def __init__(self, split: Split, *, turned: bool) -> None:
        """Convert the split to channels last if `turned`."""
        self._given = split
        self._turned = turned
        self._rows = self._turn(split)

    def batches(self, epoch: Epoch) -> Iterator[Split]:
        """Yield each batch of the epoch, in new arrays. Raises as `Epoch.batches`."""
        if not epoch.augmentation:
            yield from epoch.batches(self._rows)
            return
        for batch in epoch.batches(self._given):
            yield self._turn(batch)

    def whole(self, epoch: Epoch) -> tuple[Split, np.ndarray]:
        """Return all samples of the epoch, and the order in which to use them, int32 [N].

        Without augmentation, the samples are the same arrays in each call.
        """
        if not epoch.augmentation:
            return self._rows, epoch.order.astype(np.int32)
        batches = list(self.batches(epoch))
        gathered = Split(
            inputs=np.concatenate([batch.inputs for batch in batches]),
            targets=np.concatenate([batch.targets for batch in batches]),
        )
        return gathered, np.arange(len(gathered), dtype=np.int32)

    def turn(self, inputs: np.ndarray) -> np.ndarray:
        """Return inputs [N, ...] of the data set in the layout of the batches."""
        return channels_last(inputs) if self._turned else inputs

    def _turn(self, split: Split) -> Split:
        return Split(inputs=self.turn(split.inputs), targets=split.targets)
