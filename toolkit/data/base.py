"""Interface of data sets, and their splits."""

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
    """Preprocessed samples of a data set, in memory.

    `inputs` is float32 [N, ...], with images as [N, C, H, W]. `targets` is int64 [N] for classes,
    float32 [N, outputs] for values.
    """

    inputs: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Training samples, and test samples that are not used for training.

    `preprocessing` describes how inputs are computed from raw values, for use in a deployment.
    """

    task: Task
    train: Split
    test: Split
    preprocessing: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Arguments for loading a data set.

    `shape` is the shape of one sample that the model takes, None for the default of the data set.
    `directory` is the directory for downloads, None for the default one. `settings` has the values
    of all options of the data set.
    """

    shape: tuple[int, ...] | None = None
    directory: Path | None = None
    settings: Mapping[str, Value] = field(default_factory=dict)
    progress: Progress = field(default_factory=Silent)


class DataSet(ABC):
    """Source of labelled samples.

    `augmentation` names the steps of toolkit/data/augment.py that its study trains with.
    """

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Option]] = {}
    augmentation: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def load(self, request: Request) -> Splits:
        """Load the samples; equal requests give the same samples in the same order.

        Raises UsageError, from `refuse_shape`, for a shape that the data set does not support, and
        UnavailableError if its files can be neither found nor downloaded.
        """


def refuse_shape(name: str, asked: tuple[int, ...], *given: tuple[int, ...]) -> UsageError:
    """Return the error for samples of a shape that the data set does not support."""
    shapes = [" x ".join(map(str, shape)) for shape in (asked, *given)]
    return UsageError(
        f"The model takes rows of {shapes[0]}; {name} gives {' or '.join(shapes[1:])}.",
        hint="Choose another data set, or a model or --set options that fit: toolkit models.",
    )
