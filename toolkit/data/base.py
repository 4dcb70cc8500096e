"""What a data set is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from toolkit.core.errors import UsageError
from toolkit.core.options import Option, Value
from toolkit.core.progress import Progress, Silent
from toolkit.core.specs import Task


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of a data set, preprocessed, all in memory.

    `inputs` [N, ...] float32, images as [N, C, H, W]. `targets` [N] int64 for classes,
    [N, outputs] float32 for values.
    """

    inputs: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Training rows, and test rows that no training sees.

    `preprocessing` says how raw values became inputs, so that a deployment can do the same.
    """

    task: Task
    train: Split
    test: Split
    preprocessing: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Request:
    """How a data set is wanted.

    `shape` is the shape of a row that the model takes, None for the data set's own. `directory` is
    where downloads lie or go, None for the user's cache. `settings` are all of the data set's
    options.
    """

    shape: tuple[int, ...] | None = None
    directory: Path | None = None
    settings: Mapping[str, Value] = field(default_factory=dict)
    progress: Progress = field(default_factory=Silent)


class DataSet(ABC):
    """A source of labelled rows.

    `augmentation` are the steps of toolkit/data/augment.py that its study trains with.
    """

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Option]] = {}
    augmentation: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def load(self, request: Request) -> Splits:
        """The same rows in the same order for the same request: the seed of the split is fixed.

        Raises UsageError, by `refuse_shape`, for a shape that it cannot give, and UnavailableError
        when the files are neither there nor to be had.
        """


def refuse_shape(name: str, asked: tuple[int, ...], *given: tuple[int, ...]) -> UsageError:
    """The error for rows in a shape that the data set does not come in."""
    shapes = [" x ".join(map(str, shape)) for shape in (asked, *given)]
    return UsageError(
        f"The model takes rows of {shapes[0]}; {name} gives {' or '.join(shapes[1:])}.",
        hint="Choose another data set, or a model or --set options that fit: toolkit models.",
    )
