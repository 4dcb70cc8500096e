"""Every runtime for a GPU on every model, on a GPU: `make gpu-check` runs this.

Without one all of it is skipped, with the reason. Those that the environment variable GPU_RUNTIMES
names, separated by commas, fail where they cannot run.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import toolkit
from models import FAMILIES, builder
from models.initial import fresh_weights
from runtimes import ACCEPTS, FOR_CUDA
from toolkit.core.artifact import Artifact, Checkpoint, Format
from toolkit.core.measurement import Status
from toolkit.core.nvidia import driver
from toolkit.core.session import Availability
from toolkit.measuring.timing.engine import Procedure
from toolkit.parity.tolerances import TOLERANCES
from toolkit.sources.runtime_selection import probe

REQUIRED = set(filter(None, os.environ.get("GPU_RUNTIMES", "").split(",")))
BATCH = 8
THREADS = 2  # several tests at a time share the cores
CLOSE = TOLERANCES["float32"].relative
TF32 = {"tripy"}  # which has no switch for it


@functools.cache
def availability(runtime: str) -> Availability:
    return probe(runtime)


@pytest.fixture(params=sorted(FOR_CUDA))
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name in REQUIRED:
        found = availability(name)
        assert found.ok, f"{name} is required here: {found.reason} {found.hint}"
    if reason := driver().reason:
        pytest.skip(reason)
    if not availability(name).ok:
        pytest.skip(f"{name}: {availability(name).reason}")
    return name


@pytest.fixture(scope="module")
def form(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Format], Artifact]:
    """A family in a format, exported once, with proof: by the very runtime where it can run."""
    place = tmp_path_factory.mktemp("forms")

    @functools.cache
    def made(family: str, format: Format) -> Artifact:
        if format is Format.CHECKPOINT:
            return _fresh(family, place / family).artifact()
        source = made(family, Format.CHECKPOINT).directory
        done = toolkit.export(source, to=format, out=place / f"{family}-{format}")
        assert done.outputs.not_run is None
        return done.artifact

    return made


def _fresh(family: str, directory: Path) -> Checkpoint:
    spec = FAMILIES.create(family).spec("torch")
    maker = builder(spec, "torch")
    shapes = {name: array.shape for name, array in maker.weights(maker.build(spec)).items()}
    directory.mkdir()
    return Checkpoint.save(
        directory,
        spec=spec,
        weights=fresh_weights(shapes, 0),
        seed=0,
        epoch=0,
        metrics={},
        training={},
    )


@pytest.mark.parametrize("family", FAMILIES.names())
def test_it_is_measured_in_both_scopes_and_is_the_model(
    runtime: str, family: str, form: Callable[[str, Format], Artifact], tmp_path: Path
) -> None:
    (format,) = ACCEPTS[runtime]
    artifact = form(family, format)
    result = toolkit.bench(
        artifact.directory,
        runtimes=["torch", runtime],
        batches=[BATCH],
        procedure=Procedure(warmup=3, runs=5, processes=1),
        threads=THREADS,
        allow_fallback=runtime in TF32,
        out=tmp_path,
    )
    row = result.rows[1]
    assert row.status is Status.OK, row.reason
    assert row.device == "cuda"
    assert row.provenance is not None
    assert row.provenance.device == "cuda"
    assert row.parity is not None
    assert row.parity.max_rel is not None
    if runtime not in TF32:
        assert row.provenance.precision == "float32"
        assert row.parity.max_rel <= CLOSE
    assert {m.scope.value for m in row.measurements} == {"forward", "end_to_end"}
    assert all(len(m.blocks) for m in row.measurements)
