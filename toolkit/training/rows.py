"""The training rows as a framework wants them that has the channels last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np

from toolkit.data.base import Split
from toolkit.training.base import Epoch


def channels_last(inputs: np.ndarray) -> np.ndarray:
    """[N, C, H, W] as [N, H, W, C], in an array of its own; rows of numbers as they are."""
    if inputs.ndim != 4:
        return inputs
    return np.ascontiguousarray(inputs.transpose(0, 2, 3, 1))


@final
class Rows:
    """A split whose images are turned once, unless augmentation makes new ones each epoch."""

    def __init__(self, split: Split, *, turned: bool) -> None:
        """`turned` is whether the channels are wanted last."""
        self._given = split
        self._turned = turned
        self._rows = self._turn(split)

    def batches(self, epoch: Epoch) -> Iterator[Split]:
        """Each batch of the epoch, in arrays of its own."""
        if not epoch.augmentation:
            yield from epoch.batches(self._rows)
            return
        for batch in epoch.batches(self._given):
            yield self._turn(batch)

    def whole(self, epoch: Epoch) -> tuple[Split, np.ndarray]:
        """Rows of the epoch, all of them, and in what order they are taken, int32 [rows].

        Without augmentation the rows are the same arrays each time.
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
        """Any rows of the data set, as those of the split come."""
        return channels_last(inputs) if self._turned else inputs

    def _turn(self, split: Split) -> Split:
        return Split(inputs=self.turn(split.inputs), targets=split.targets)
