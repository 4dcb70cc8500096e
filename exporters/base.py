"""Base classes of exporters, exposers and tensor readers, and the data classes that they use."""

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
    """Options of an export; None stands for the exporter's default.

    `opset` is the ONNX opset, `layout` the layout of image inputs ("NCHW" or "NHWC"),
    `compute_capabilities` the GPUs that an engine is built for (89 is 8.9). `batches` are the
    smallest, the usual and the largest batch that an engine takes, `profiles` the smallest, the
    usual and the largest shape of inputs, by name.
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
        """Return the options that are not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def _require_profile(name: str, shapes: Sequence[Sequence[int]]) -> None:
    """Raise UsageError unless `shapes` are three shapes of one rank with non-decreasing extents."""
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
    """Result of an export.

    `entry` is the file that a runtime opens, `precision` its floating-point dtype ("int8" if it is
    quantised), `options` the settings and versions that it was written with, `signature` its
    signature if that differs from the source's.
    """

    entry: str
    precision: str
    options: Mapping[str, Any]
    signature: Signature | None = None


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a model file that the toolkit did not write declares about itself.

    `entry` is the file in `directory` that a runtime opens, `files` are all files of the model.
    """

    signature: Signature
    precision: str
    directory: Path
    entry: str
    files: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Quantisation:
    """Linear quantisation of stored integers: value = (number - zero_point) * scale.

    `scale` and `zero_point` have one element, or one for each index of `axis`.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0

    def restore(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the dequantised values and the quantisation step, both in float64.

        The step has a shape that broadcasts to the values.
        """
        shape = [1] * numbers.ndim
        if self.scale.size > 1:
            shape[self.axis] = self.scale.size
        step = self.scale.astype(np.float64).reshape(shape)
        zero = self.zero_point.astype(np.float64)
        zero = zero.reshape(shape) if zero.size > 1 else zero.reshape([1] * numbers.ndim)
        return (numbers.astype(np.float64) - zero) * step, step


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Constant that a file stores.

    `readers` are the live operations that read it or, in a format without a graph, the layer that
    it belongs to. `scaling` marks a scale or zero point of an ONNX graph, which is not a weight.
    """

    name: str
    array: np.ndarray
    readers: tuple[str, ...]
    quantisation: Quantisation | None = None
    scaling: bool = False


@dataclass(frozen=True, kw_only=True)
class FoldedValues:
    """Values of a fold in float64: a factor (kernel or scale), and the shift added to the product.

    `factor_terms` and `shift_terms` are the sums of the magnitudes that each element was computed
    from, and bound its rounding error. They are 0 for a constant that is used as it is stored.
    """

    factor: np.ndarray
    factor_terms: np.ndarray
    shift: np.ndarray
    shift_terms: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Part of a source's graph that a converter can compute from constants.

    It is a layer, or a multiplication and an addition. `names` are the constants that it depends
    on, `factors` those that its kernel or scale depends on, `steps` is the number of operators
    folded into one, `how` a description. `compute` returns None if the fold is impossible.
    """

    names: frozenset[str]
    factors: frozenset[str]
    steps: int
    how: str
    compute: Callable[[], FoldedValues | None]


@dataclass(frozen=True, kw_only=True)
class Route:
    """Source formats, target format and requirements of an exporter, known without importing it.

    `takes` are the source formats. `framework` is the one in which the exporter builds a
    checkpoint's model, None if it builds none. `checked_with` is the runtime whose outputs are
    compared with the model's; if it cannot run for lack of a GPU, the outputs of the variant that
    the exporter starts from are compared instead. `options` names the fields of ExportOptions that
    have an effect.
    """

    takes: frozenset[Format]
    format: Format
    checked_with: str
    framework: str | None = None
    options: frozenset[str] = frozenset()


class Exporter(ABC):
    """Exporter of models to another format."""

    route: ClassVar[Route]

    @abstractmethod
    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        """Write the model to `directory`, with the input and output names of `source.signature`.

        The format of `source` must be one that the route takes, and its files must match their
        digests. Raises SourceError for a model that cannot be exported.
        """


class InnerTensorWriter(ABC):
    """Writer of copies of a model whose inner tensors are outputs as well."""

    @abstractmethod
    def expose(self, source: Artifact, directory: Path) -> tuple[Path, Mapping[str, str]]:
        """Write a copy of the model to `directory` that outputs its inner tensors as well.

        The added outputs are the floating-point tensors in the order in which they are computed.
        Return the path of the copy, and the operator that computes each tensor, in the same order.
        Raises SourceError for a model that cannot be written.
        """


class TensorReader(ABC):
    """Reader of the tensors and operators that the files of a format store."""

    @abstractmethod
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        """Return every constant of the file at `path`, which is the one that a runtime opens.

        Raises SourceError for a file of another format. Does not run code from the file.
        """

    def folds(self, path: Path) -> Sequence[Fold]:
        """Return the folds of constants that a converter may compute in advance. Default: none."""
        return ()

    @abstractmethod
    def operators(self, path: Path) -> Mapping[str, int]:
        """Count the operators of the graph by kind. Empty for a format without a graph."""

    @abstractmethod
    def describe(self, path: Path) -> Description:
        """Describe the model in a file or directory of this format.

        Raises SourceError if it cannot be read, or if the format does not store this information.
        """
