"""CIFAR-10 and CIFAR-100, read from the binary archives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from toolkit.core.errors import IntegrityError
from toolkit.core.specs import Task, TaskKind
from toolkit.data.archives import members, require
from toolkit.data.base import DataSet, Request, Split, Splits, refuse_shape
from toolkit.data.downloads import RemoteFile, fetch
from toolkit.data.images import RAW_MAXIMUM, normalised

SHAPE = (3, 32, 32)
MEAN = STD = (0.5, 0.5, 0.5)
# https://www.cs.toronto.edu/~kriz/cifar.html publishes MD5 sums: c32a1d4ab5d03f1284b67883e8d87530
# for CIFAR-10 and 03b5dce01913d631647c71ecec9e9cb8 for CIFAR-100. The SHA-256 sums of the same
# files are in TensorFlow Datasets (url_checksums) and in MLDatasets.jl.
CIFAR10_ARCHIVE = RemoteFile(
    name="cifar-10-binary.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    digest="sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
CIFAR100_ARCHIVE = RemoteFile(
    name="cifar-100-binary.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    digest="sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """File names and record format of an archive.

    A record has `labels` bytes, of which the last is the class, and 3,072 bytes of the image: the
    red, green and blue planes, each line by line.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: int
    classes: int


CIFAR10_LAYOUT = Layout(
    train=tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
    test=("cifar-10-batches-bin/test_batch.bin",),
    labels=1,
    classes=10,
)
CIFAR100_LAYOUT = Layout(
    train=("cifar-100-binary/train.bin",),
    test=("cifar-100-binary/test.bin",),
    labels=2,  # coarse, fine
    classes=100,
)


@final
class Cifar10(DataSet):
    """50,000 training and 10,000 test photographs [N, 3, 32, 32] in RGB order, in ten classes.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, with the
    official split. Each channel is (value / 255 - 0.5) / 0.5.
    """

    name: ClassVar[str] = "cifar10"
    augmentation: ClassVar[tuple[str, ...]] = ("crop", "flip")

    def __init__(self, archive: RemoteFile = CIFAR10_ARCHIVE) -> None:
        self._archive = archive

    def load(self, request: Request) -> Splits:
        return _load(self.name, self._archive, CIFAR10_LAYOUT, request)


@final
class Cifar100(DataSet):
    """Like Cifar10, with the hundred fine classes. Its study trains without augmentation."""

    name: ClassVar[str] = "cifar100"

    def __init__(self, archive: RemoteFile = CIFAR100_ARCHIVE) -> None:
        self._archive = archive

    def load(self, request: Request) -> Splits:
        return _load(self.name, self._archive, CIFAR100_LAYOUT, request)


def _load(name: str, archive: RemoteFile, layout: Layout, request: Request) -> Splits:
    if request.shape not in (None, SHAPE):
        raise refuse_shape(name, request.shape, SHAPE)
    path = fetch(archive, request.directory, request.progress)
    found = members(path, {*layout.train, *layout.test}.__contains__)

    def split(names: Sequence[str]) -> Split:
        content = [_records(require(found, name, path), layout, name, path) for name in names]
        records = np.concatenate(content)
        images = records[:, layout.labels :].reshape(-1, *SHAPE)
        return Split(
            inputs=normalised(images, MEAN, STD),
            targets=records[:, layout.labels - 1].astype(np.int64),
        )

    return Splits(
        task=Task(kind=TaskKind.CLASSIFICATION, input_shape=SHAPE, outputs=layout.classes),
        train=split(layout.train),
        test=split(layout.test),
        preprocessing={
            "raw_maximum": RAW_MAXIMUM,
            "order": "rgb",
            "mean": list(MEAN),
            "std": list(STD),
        },
    )


def _records(content: bytes, layout: Layout, name: str, path: Path) -> np.ndarray:
    """Return uint8 [N, labels + 3072]. Raises IntegrityError if the content is not records."""
    size = layout.labels + int(np.prod(SHAPE))
    if not content or len(content) % size:
        raise IntegrityError(
            f"Read {name} of {path}: it has {len(content)} bytes, expected records of {size}.",
            hint="It is not the archive of this data set: remove it.",
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    largest = int(records[:, layout.labels - 1].max())
    if largest >= layout.classes:
        raise IntegrityError(
            f"Read {name} of {path}: it has class {largest}, expected below {layout.classes}.",
            hint="It is not the archive of this data set: remove it.",
        )
    return records
