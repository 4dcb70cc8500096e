"""What an exporter and a reader of tensors are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from toolkit.core.artifact import Artifact, Format


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an exporter wrote: the file that a runtime opens, the floating-point dtype that is in
    it, and the options that made it."""

    entry: str
    precision: str
    options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Quantisation:
    """How whole numbers stand for values: (number - zero_point) * scale.

    `scale` and `zero_point` have one element, or one for each index of `axis`.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0

    def restore(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values in float64, and the step between two that are neighbours at each place."""
        shape = [1] * numbers.ndim
        if self.scale.size > 1:
            shape[self.axis] = self.scale.size
        step = self.scale.astype(np.float64).reshape(shape)
        zero = self.zero_point.astype(np.float64)
        zero = zero.reshape(shape) if zero.size > 1 else zero.reshape([1] * numbers.ndim)
        return (numbers.astype(np.float64) - zero) * step, step


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A constant found in a file; `readers` are the live operations that take it, or, in a format
    that has no graph, what it belongs to."""

    name: str
    array: np.ndarray
    readers: tuple[str, ...]
    quantisation: Quantisation | None = None


class Exporter(ABC):
    """Writes a model in another format.

    `takes` is the format that it starts from, and `framework` the one that it builds a checkpoint's
    model in, None for one that builds none. `checked_with` is the runtime whose outputs are held
    against the model's.
    """

    format: ClassVar[Format]
    takes: ClassVar[Format] = Format.CHECKPOINT
    framework: ClassVar[str | None] = None
    checked_with: ClassVar[str]

    @abstractmethod
    def export(self, source: Artifact, directory: Path) -> Exported:
        """Writes the model into `directory`, with the names of the source's signature.

        `source` has format `takes`, and its files are as their digests say.
        """


class TensorReader(ABC):
    """Reads back what lies in the files of a format, from the disk."""

    @abstractmethod
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        """Every constant of the file that a runtime opens.

        Raises SourceError for what is no such file. Runs no code that the file brings.
        """

    @abstractmethod
    def operators(self, path: Path) -> Mapping[str, int]:
        """How often each kind of operator is in the graph; empty for a format without one."""
