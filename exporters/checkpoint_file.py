"""Reading the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from safetensors import SafetensorError
from safetensors.numpy import load

from exporters.base import Description, StoredTensor, TensorReader
from toolkit.core.errors import SourceError
from toolkit.core.files import wrapping_os_errors


@final
class CheckpointTensors(TensorReader):
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        with wrapping_os_errors(f"read {path}"):
            content = path.read_bytes()
        try:
            tensors = load(content)
        except SafetensorError as error:
            raise SourceError(
                f"{path} is no safetensors file: {error}.",
                hint="Give a directory that `toolkit train` wrote.",
            ) from error
        return [
            StoredTensor(name=name, array=array, readers=(name.rpartition(".")[0] or name,))
            for name, array in sorted(tensors.items())
        ]

    def operators(self, path: Path) -> Mapping[str, int]:
        return {}

    def describe(self, path: Path) -> Description:
        raise SourceError(
            f"{path} holds weights, and does not say how they are used.",
            hint="Give the directory that `toolkit train` wrote.",
        )
