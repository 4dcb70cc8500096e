"""Handwritten digits that are bundled with scikit-learn, and need no network."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from toolkit.core.specs import Task, TaskKind
from toolkit.data.base import DataSet, Request, Split, Splits, refuse_shape

SPLIT_SEED = 0
TEST_FRACTION = 0.2
RAW_MAXIMUM = 16.0
RAW_SIDE = 8
SIDES = (32, 48, 64)


@final
class Digits(DataSet):
    """1,797 digits of 8x8 grey values 0..16, as float32 [N, 3, side, side] in ten classes.

    The side is 32, 48 or 64, by default 32.

    Source: UCI, Optical Recognition of Handwritten Digits, as `sklearn.datasets.load_digits`.
    The images are resized by bilinear interpolation with pixel centres at half integers, repeated
    over three channels, and normalised by the mean and standard deviation of the training samples.
    """

    name: ClassVar[str] = "digits"

    def load(self, request: Request) -> Splits:
        shapes = [(3, side, side) for side in SIDES]
        shape = shapes[0] if request.shape is None else request.shape
        if shape not in shapes:
            raise refuse_shape(self.name, shape, *shapes)
        raw = load_digits()
        factor = shape[-1] // RAW_SIDE
        images = zoom(
            (raw.images / RAW_MAXIMUM).astype(np.float32),
            (1, factor, factor),
            order=1,
            mode="nearest",
            grid_mode=True,
        )
        train, test = train_test_split(
            np.arange(len(images)),
            test_size=TEST_FRACTION,
            random_state=SPLIT_SEED,
            stratify=raw.target,
        )
        mean, std = float(images[train].mean()), float(images[train].std())

        def split(rows: np.ndarray) -> Split:
            normal = ((images[rows] - mean) / std).astype(np.float32)
            inputs = np.repeat(normal[:, None], 3, axis=1)
            return Split(inputs=inputs, targets=raw.target[rows].astype(np.int64))

        return Splits(
            task=Task(kind=TaskKind.CLASSIFICATION, input_shape=shape, outputs=10),
            train=split(train),
            test=split(test),
            preprocessing={
                "raw_maximum": RAW_MAXIMUM,
                "resize": list(shape[1:]),
                "interpolation": "bilinear",
                "mean": [mean] * 3,
                "std": [std] * 3,
                "split_seed": SPLIT_SEED,
            },
        )
