"""ONNX -> engine of TensorRT-RTX, built ahead of time, which needs no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import tensorrt_rtx as trt

from exporters import ROUTES
from exporters.base import Exported, Exporter, ExportOptions, Route
from exporters.tensorrt.engine import BuildRequest, EngineTensors, write_engine
from exporters.tensorrt.network import Library
from toolkit.core.artifact import Artifact
from toolkit.core.errors import UsageError

LIBRARY = Library(trt=trt, name="TensorRT-RTX", target="tensorrt-rtx")
CAPABILITIES = (80, 86, 89, 120)  # 75 has no matrix product in float32
KNOWN = tuple(sorted(int(c) for c in trt.ComputeCapability.__members__.values() if int(c) > 1))


@final
class TensorRtRtx(Exporter):
    """Exporter of engines for GPUs of the chosen compute capabilities.

    There is no timing cache: nothing is timed, and the calls for one do nothing (1.2 and later).
    """

    route: ClassVar[Route] = ROUTES["tensorrt-rtx"]

    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        capabilities = _capabilities(options.compute_capabilities)

        def prepare(config: Any) -> None:
            config.num_compute_capabilities = len(capabilities)
            for place, number in enumerate(capabilities):
                config.set_compute_capability(trt.ComputeCapability(number), place)

        request = BuildRequest(
            compute_capabilities=capabilities,
            batches=options.batches,
            profiles=options.profiles or {},
            prepare=prepare,
        )
        return write_engine(LIBRARY, source, directory, request)


@final
class TensorRtRtxTensors(EngineTensors):
    library: ClassVar[Library] = LIBRARY


def _capabilities(asked: Sequence[int] | None) -> tuple[int, ...]:
    found = sorted(set(CAPABILITIES if asked is None else asked))
    if unknown := [str(number) for number in found if number not in KNOWN]:
        raise UsageError(
            f"TensorRT-RTX {trt.__version__} builds nothing for compute capability "
            f"{', '.join(unknown)}.",
            hint=f"Known: {', '.join(map(str, KNOWN))} (89 is 8.9). `nvidia-smi "
            "--query-gpu=compute_cap --format=csv` says what a GPU has.",
        )
    return tuple(found)
