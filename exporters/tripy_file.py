"""Reader of the files beside an executable of NVIDIA Tripy, without Tripy and without a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from exporters.base import Description, StoredTensor, TensorReader
from toolkit.core.artifact import WEIGHTS
from toolkit.core.codec import Digest, FileName
from toolkit.core.documents import read_as
from toolkit.core.errors import IntegrityError, SourceError
from toolkit.core.files import digest_file
from toolkit.core.tensors import load_tensors

EXECUTABLE = "executable.json"  # written by Tripy
PAIR = "tripy.json"  # digests of an executable and of the weights that it was compiled with
PAIR_SCHEMA = "toolkit.tripy/1"


@final
class TripyTensors(TensorReader):
    """Reader of the weights that a module had when it was compiled.

    An executable does not return its weights, so they are stored beside it. Digests must show that
    the two files were written together.
    """

    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        _require_whole(path)
        return [
            StoredTensor(name=name, array=array, readers=(name.rpartition(".")[0],))
            for name, array in sorted(load_tensors(path.parent / WEIGHTS).items())
        ]

    def operators(self, path: Path) -> Mapping[str, int]:
        return {}

    def describe(self, path: Path) -> Description:
        raise SourceError(
            f"{path} is an executable of Tripy: neither its weights nor its precision can be read "
            "from it.",
            hint="Give the directory that `toolkit export` wrote, or the checkpoint.",
        )


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Digests of an executable and its weights that were written together."""

    files: Mapping[FileName, Digest]


def _require_whole(path: Path) -> None:
    """Raise SourceError unless the files are those that were written together."""
    try:
        written = read_as(path.parent / PAIR, PAIR_SCHEMA, _Pair).files
        found = {name: digest_file(path.parent / name) for name in written}
    except (OSError, IntegrityError) as error:
        raise SourceError(f"{path} could not be read: {error}", hint=WHOLE) from error
    found |= {EXECUTABLE: digest_file(path)}
    if found != written:
        altered = ", ".join(name for name in found if found[name] != written.get(name))
        raise SourceError(
            f"{altered} in {path.parent} is not what was written there: the executable and the "
            "weights do not belong to each other.",
            hint=WHOLE,
        )


WHOLE = "Give a whole directory that `toolkit export --to tripy` wrote, or export again."
