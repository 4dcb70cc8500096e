"""Checkpoint -> executable of NVIDIA Tripy, compiled for the GPU of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import nvtripy as tp
import tensorrt
from safetensors.numpy import save

from exporters import ROUTES
from exporters.base import Exported, Exporter, ExportOptions, Route
from exporters.tripy_file import EXECUTABLE, PAIR, PAIR_SCHEMA
from models import builder
from models.tripy.base import held
from models.tripy.messages import words_of
from toolkit.core.artifact import PROGRAM, WEIGHTS, Artifact, Checkpoint
from toolkit.core.documents import seal, write_document
from toolkit.core.errors import SourceError
from toolkit.core.files import digest_file, write_atomically

BATCHES = (1, 8, 64)


@final
class TripyModule(Exporter):
    """Exporter of a family's Tripy module with the checkpoint's weights, for a range of batches.

    The stored weights are read back from the module just before it is compiled.
    """

    route: ClassVar[Route] = ROUTES["tripy"]

    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        batches = options.batches or BATCHES
        module = _restored(source)
        write_atomically(directory / WEIGHTS, save(held(module)))
        _compile(module, source, batches, directory / EXECUTABLE)
        settings = {
            "nvtripy": tp.__version__,
            "tensorrt": tensorrt.__version__,
            "batches": list(batches),
        }
        pair = {name: digest_file(directory / name) for name in (EXECUTABLE, WEIGHTS)}
        write_document(directory / PAIR, seal(PAIR_SCHEMA, {**settings, "files": pair}))
        return Exported(
            entry=EXECUTABLE, precision="float32", options={"exporter": "nvtripy", **settings}
        )


def _restored(source: Artifact) -> Any:
    """Return the family's Tripy module with the checkpoint's weights.

    Raises SourceError for a user model, because Tripy accepts no modules but its own.
    """
    if PROGRAM in source.files:
        raise SourceError(
            f"{source.model.name!r} is a user model, which has no counterpart in Tripy.",
            hint="Give a family of `toolkit models` that lists tripy; or export to tensorrt or "
            "tensorrt-rtx, which take any ONNX graph.",
        )
    maker = builder(source.model, "tripy")
    module = maker.build(source.model)
    maker.restore(module, Checkpoint.load(source.directory).weights())
    return module


def _compile(module: Any, source: Artifact, batches: Sequence[int], path: Path) -> None:
    """Write the executable. Raises SourceError, with Tripy's message, if it cannot be compiled."""
    inputs = [
        tp.InputInfo(
            (tp.NamedDimension("batch", *batches), *spec.shape[1:]), dtype=getattr(tp, spec.dtype)
        )
        for spec in source.signature.inputs
    ]
    try:
        tp.compile(module, args=inputs).save(str(path))
    except Exception as error:  # errors of its compiled part have no base class with Tripy's own
        raise SourceError(
            f"Tripy {tp.__version__} could not compile {source.path}: {words_of(error)}.",
            hint="It compiles for the GPU of this machine, so there has to be one: `toolkit "
            "doctor` says what the driver lists.",
        ) from error
