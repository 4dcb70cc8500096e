"""The store of results: every raw sample comes back, and no change goes unseen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolkit.core.codec import encode
from toolkit.core.errors import IntegrityError, SourceError, ToolkitError
from toolkit.core.measurement import (
    Agreement,
    Block,
    Measurement,
    Opening,
    Result,
    Row,
    Scope,
    Status,
)
from toolkit.core.session import Provenance
from toolkit.results.store import load, save

SAMPLES = np.array([2**62, 1, 0, 123_456_789], np.int64)

nanoseconds = hnp.arrays(
    np.int64, st.integers(0, 4), elements=st.integers(0, np.iinfo(np.int64).max)
)


def measurement(samples: np.ndarray = SAMPLES, scope: Scope = Scope.FORWARD) -> Measurement:
    blocks = (
        Block(round=0, lead=samples[:1], samples=samples),
        Block(round=1, lead=samples[:0], samples=samples[::-1]),
    )
    return Measurement(scope=scope, warmup=samples[1:], settled=True, blocks=blocks)


def row(**changes: object) -> Row:
    full = Row(
        runtime="torch",
        artifact="runs/lenet",
        artifact_digest="sha256:0",
        batch=8,
        status=Status.OK,
        precision_requested="float32",
        openings=(Opening(import_ns=1, open_ns=2, first_run_ns=3),),
        parity=Agreement(passed=True, max_abs=1e-7, max_rel=None),
        provenance=Provenance(
            runtime="torch", version="2", device="cpu", precision="float32", threads=2
        ),
        measurements=(measurement(), measurement(scope=Scope.END_TO_END)),
        peak_rss_bytes=10**9,
    )
    return replace(full, **changes)


FAILED = Row(
    runtime="openvino",
    artifact="runs/lenet",
    artifact_digest="sha256:0",
    batch=8,
    status=Status.UNAVAILABLE,
    reason="It is not installed.",
    precision_requested="float32",
)


PLAN = {
    "artifact": "runs/lenet",
    "runtimes": ["onnxruntime"],
    "batches": [1],
    "inputs": "random values, seed 0",
    "options": {"threads": 2},
    "cpus": None,
}
ENVIRONMENT = {
    "cpu": {
        "model": "é",
        "flags": ["avx2"],
        "logical_cores": 2,
        "available_cores": 2,
        "container_cores": None,
    },
    "memory_bytes": 2**30,
    "platform": "Linux",
    "python": "3.11",
    "commit": None,
    "versions": {},
    "variables": {},
}


def result(**changes: object) -> Result:
    full = Result(
        id="20250101T000000Z-00c0ffee",
        created="2025-01-01T00:00:00Z",
        plan=PLAN,
        rows=(row(), FAILED),
        environment=ENVIRONMENT,
        warnings=("The machine is not quiet.",),
    )
    return replace(full, **changes)


def test_result_comes_back_as_it_was_saved(tmp_path: Path):
    path = save(tmp_path / "results", result())
    assert path == tmp_path / "results" / "20250101T000000Z-00c0ffee.json"
    back = load(path)
    assert encode(back) == encode(result())
    assert (back.rows[0].status, back.rows[1]) == (Status.OK, FAILED)
    assert back.rows[0].provenance == row().provenance
    assert isinstance(back.warnings, tuple)


@given(nanoseconds)
def test_raw_samples_keep_every_nanosecond(
    tmp_path_factory: pytest.TempPathFactory, samples: np.ndarray
):
    saved = result(rows=(row(measurements=(measurement(samples),)),))
    path = save(tmp_path_factory.mktemp("results"), saved)
    (back,) = load(path).rows[0].measurements
    assert np.array_equal(back.samples, np.concatenate([samples, samples[::-1]]))
    assert back.samples.dtype == back.warmup.dtype == back.blocks[0].lead.dtype == np.int64
    assert np.array_equal(back.warmup, samples[1:])
    assert np.array_equal(back.blocks[0].lead, samples[:1])


def test_measurement_is_found_by_its_scope():
    assert row().measurement(Scope.END_TO_END) is not None
    assert FAILED.measurement(Scope.FORWARD) is None


def test_same_result_makes_the_same_bytes(tmp_path: Path):
    one, two = save(tmp_path / "one", result()), save(tmp_path / "two", result())
    assert one.read_bytes() == two.read_bytes()


def test_altered_sample_is_found(tmp_path: Path):
    path = save(tmp_path, result())
    path.write_text(path.read_text().replace("123456789", "123456788", 1))
    with pytest.raises(IntegrityError, match="but states"):
        load(path)


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "toolkit.artifact/2"}'])
def test_what_is_no_result_is_a_source_error(tmp_path: Path, text: str):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(SourceError):
        load(tmp_path / "r.json")


def test_place_that_cannot_be_written_is_a_toolkit_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ToolkitError, match="Could not write"):
        save(tmp_path / "file" / "results", result())


def test_stored_result_is_never_changed(tmp_path: Path):
    save(tmp_path, result())
    with pytest.raises(ToolkitError):
        save(tmp_path, result(warnings=("another",)))
