"""Reader of the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from exporters.base import Description, StoredTensor, TensorReader
from toolkit.core.errors import SourceError
from toolkit.core.tensors import load_tensors


@final
class CheckpointTensors(TensorReader):
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        return [
            StoredTensor(name=name, array=array, readers=(name.rpartition(".")[0] or name,))
            for name, array in sorted(load_tensors(path).items())
        ]

    def operators(self, path: Path) -> Mapping[str, int]:
        return {}

    def describe(self, path: Path) -> Description:
        raise SourceError(
            f"{path} holds weights, and does not say how they are used.",
            hint="Give the directory that `toolkit train` wrote.",
        )
