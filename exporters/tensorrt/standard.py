"""ONNX -> engine of TensorRT 10 or 11, built on the GPU that it is for."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, final

import tensorrt as trt

from exporters import ROUTES
from exporters.base import Exported, Exporter, ExportOptions, Route
from exporters.tensorrt.engine import BuildRequest, EngineTensors, write_engine
from exporters.tensorrt.network import Library
from exporters.tensorrt.timing_cache import TimingCache
from toolkit.core.artifact import Artifact
from toolkit.core.errors import UnavailableError
from toolkit.core.nvidia import NO_DRIVER, Gpu, driver

LIBRARY = Library(trt=trt, name="TensorRT", target="tensorrt")


@final
class TensorRt(Exporter):
    """Exporter of engines for GPUs with the compute capability of the one that builds them.

    The measured times of kernels are cached for the next build on the same GPU.
    """

    route: ClassVar[Route] = ROUTES["tensorrt"]

    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        gpu = _gpu()
        timings = TimingCache.of(gpu, trt.__version__)
        request = BuildRequest(
            compute_capabilities=(gpu.capability,),
            batches=options.batches,
            profiles=options.profiles or {},
            gpu=gpu.name,
            prepare=timings.attach,
            keep=timings.keep,
        )
        return write_engine(LIBRARY, source, directory, request)


@final
class TensorRtTensors(EngineTensors):
    library: ClassVar[Library] = LIBRARY


def _gpu() -> Gpu:
    """Return the first GPU, on which TensorRT builds. Raises UnavailableError if there is none."""
    found = driver()
    if found.reason is not None:
        raise UnavailableError(
            f"TensorRT builds an engine on the GPU that it is for, and {found.reason}.",
            hint=f"{NO_DRIVER} Engines of --to tensorrt-rtx are built without a GPU.",
        )
    return found.gpus[0]
