"""What an exporter is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from toolkit.core.artifact import Checkpoint, Format


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an exporter wrote: the file that a runtime opens, the floating-point dtype that is in
    it, and the options that made it."""

    entry: str
    precision: str
    options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A constant found in an exported file; `readers` are the live operations that take it."""

    name: str
    array: np.ndarray
    readers: tuple[str, ...]


class Exporter(ABC):
    """Writes a checkpoint in another format, and reads back the tensors that it wrote."""

    format: ClassVar[Format]
    frameworks: ClassVar[frozenset[str]]

    @abstractmethod
    def export(self, checkpoint: Checkpoint, directory: Path) -> Exported:
        """Writes the model into `directory`, with the names of the checkpoint's signature."""

    @abstractmethod
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        """Every constant of a file that `export` wrote, read from the disk."""
