"""What an exporter and a reader of tensors are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import UsageError
from toolkit.core.specs import Signature


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How to write it, where an exporter gives a choice; None is its own default.

    `opset` is ONNX's, `layout` that of image inputs ("NCHW" or "NHWC"), `compute_capabilities` the
    GPUs that an engine is built for (89 is 8.9), `batches` the least, the usual and the largest
    batch that it takes, `profiles` the least, the usual and the largest shape of inputs by name.
    """

    opset: int | None = None
    layout: str | None = None
    compute_capabilities: tuple[int, ...] | None = None
    batches: tuple[int, ...] | None = None
    profiles: Mapping[str, tuple[tuple[int, ...], ...]] | None = None

    def __post_init__(self) -> None:
        found = self.batches
        if found is not None and (len(found) != 3 or [1, *found] != sorted([1, *found])):
            raise UsageError(
                f"Got batches {', '.join(map(str, found)) or 'none'}; expected three, none smaller "
                "than the one before it: the least, the usual and the largest.",
                hint="Give, say, 1,8,64.",
            )
        for name, shapes in (self.profiles or {}).items():
            _require_profile(name, shapes)

    def given(self) -> dict[str, Any]:
        """Those that are not left to the exporter."""
        return {name: value for name, value in vars(self).items() if value is not None}


def _require_profile(name: str, shapes: Sequence[Sequence[int]]) -> None:
    """Raises UsageError unless these are three shapes of one rank, no extent of which decreases."""
    ranks = {len(shape) for shape in shapes}
    if len(shapes) == 3 and len(ranks) == 1:
        least, usual, largest = shapes
        extents = list(zip(least, usual, largest, strict=True))
        if extents and all(1 <= a <= b <= c for a, b, c in extents):
            return
    raise UsageError(
        f"Got the profile {':'.join('x'.join(map(str, shape)) for shape in shapes)} of input "
        f"{name!r}, expected the least, the usual and the largest shape, with as many axes each.",
        hint="Give, for example, --profile x=1x3x224x224:8x3x224x224:64x3x640x640.",
    )


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an exporter wrote: the file that a runtime opens, the floating-point dtype that is in
    it, and the options that made it; its signature, where that is not the source's."""

    entry: str
    precision: str
    options: Mapping[str, Any]
    signature: Signature | None = None


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a file that somebody else made says of itself.

    `entry` is the file in `directory` that a runtime opens, `files` all that belong to it.
    """

    signature: Signature
    precision: str
    directory: Path
    entry: str
    files: Sequence[str]


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
    that has no graph, what it belongs to. `scaling` says of one in ONNX that it is a scale or a
    zero point, and no weight."""

    name: str
    array: np.ndarray
    readers: tuple[str, ...]
    quantisation: Quantisation | None = None
    scaling: bool = False


@dataclass(frozen=True, kw_only=True)
class FoldedValues:
    """In float64: a kernel, or a scale, and what is added to its product. The terms are the sizes
    of what each was computed of; all 0 for one that is a constant as it is."""

    factor: np.ndarray
    factor_terms: np.ndarray
    shift: np.ndarray
    shift_terms: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A layer, or a multiplication and an addition, of which a source's graph says that it can be
    computed from constants: `names` are these, `factors` those of them that the kernel or scale
    depends on, `steps` is the number of operators that are folded into one. `compute` gives None
    for a fold that cannot be."""

    names: frozenset[str]
    factors: frozenset[str]
    steps: int
    how: str
    compute: Callable[[], FoldedValues | None]


@dataclass(frozen=True, kw_only=True)
class Route:
    """What an exporter takes and writes, known without importing it.

    `takes` are the formats that it starts from, and `framework` the one that it builds a
    checkpoint's model in, None for one that builds none. `checked_with` is the runtime whose
    outputs are held against the model's: where it cannot run, for want of a GPU, those of the form
    are that the exporter starts from. `options` names the fields of ExportOptions that it heeds.
    """

    takes: frozenset[Format]
    format: Format
    checked_with: str
    framework: str | None = None
    options: frozenset[str] = frozenset()


class Exporter(ABC):
    """Writes a model in another format."""

    route: ClassVar[Route]

    @abstractmethod
    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        """Writes the model into `directory`, with the names of the source's signature.

        `source` has a format that its route takes, and its files are as their digests say. Raises
        SourceError for a model that cannot be written so.
        """


class Exposer(ABC):
    """Writes a model once more, so that it gives its inner tensors too."""

    @abstractmethod
    def expose(self, source: Artifact, directory: Path) -> tuple[Path, Mapping[str, str]]:
        """A file in `directory` whose outputs are the inner tensors in floating point, in the order
        in which they are computed, and those of the model; and what makes each, in that order.

        Raises SourceError for a model that cannot be written so.
        """


class TensorReader(ABC):
    """Reads back what lies in the files of a format, from the disk."""

    @abstractmethod
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        """Every constant of the file that a runtime opens.

        Raises SourceError for what is no such file. Runs no code that the file brings.
        """

    def folds(self, path: Path) -> Sequence[Fold]:
        """What can be computed from the constants of the graph, as converters do beforehand."""
        return ()

    @abstractmethod
    def operators(self, path: Path) -> Mapping[str, int]:
        """How often each kind of operator is in the graph; empty for a format without one."""

    @abstractmethod
    def describe(self, path: Path) -> Description:
        """What a file, or directory, of this format says of itself. Raises SourceError."""
