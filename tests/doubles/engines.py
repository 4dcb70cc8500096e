"""Artifacts whose engine is that of the double."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.doubles import tensorrt_double as trt
from toolkit.core.artifact import Artifact, Format, parents_of
from toolkit.core.engines import ENGINE, GRAPH, EngineRecord
from toolkit.core.files import digest_file


def fake_engine(
    graph: Artifact,
    place: Path,
    *,
    batches: tuple[int, int, int] = (1, 8, 64),
    library: str = "tensorrt",
    version: str = trt.__version__,
    capability: int = 89,
    gpu: str | None = "Fake GPU (host memory)",
) -> Artifact:
    """An engine of an ONNX artifact, in a new directory, as the exporter of `library` leaves it."""
    place.mkdir(parents=True)
    shutil.copyfile(graph.path, place / GRAPH)
    (place / ENGINE).write_bytes(trt.engine_of(graph.path.read_bytes(), *batches))
    EngineRecord(
        library=library,
        version=version,
        compute_capabilities=(capability,),
        gpu=gpu,
        batches=batches,
        tf32=False,
        files={name: digest_file(place / name) for name in (ENGINE, GRAPH)},
    ).save(place)
    return Artifact.save(
        place,
        model=graph.model,
        format=Format(library),
        precision=graph.precision,
        signature=graph.signature,
        entry=ENGINE,
        parents=parents_of(place, graph),
        options={"exporter": library},
    )
