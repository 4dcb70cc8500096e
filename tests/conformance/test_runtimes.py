"""What every runtime must do, asked of every runtime alike.

A new entry in the registry is picked up by itself. A runtime that cannot be had on the machine of
the tests is skipped with its reason, unless REQUIRED names it; on a machine with a GPU,
GPU_RUNTIMES=torch-cuda,onnxruntime-cuda in the environment names more.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporters import ROUTES
from runtimes import ACCEPTS, RUNTIMES
from tests.conformance.expected import mark_expected
from tests.conftest import Exported
from toolkit.core.artifact import Artifact, Checkpoint, Format
from toolkit.core.errors import (
    FeedError,
    IntegrityError,
    SessionError,
    SourceError,
    UnavailableError,
)
from toolkit.core.session import Runtime, Session, SessionOptions
from toolkit.measuring.load_test.load_generator import together
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.parity.outputs import compare_outputs
from toolkit.parity.tolerances import TOLERANCES

TF32 = {"tripy"}  # which has no switch for it
REQUIRED = {
    "null", "torch", "torch-compile", "torch-export", "aotinductor", "onnxruntime",
    "onnx-reference", "openvino",
    "tensorflow", "tensorflow-xla", "litert",
} | set(filter(None, os.environ.get("GPU_RUNTIMES", "").split(",")))  # fmt: skip
THREADS = 2  # of every session here: TensorFlow has one number of them for a process

EXPECTED_FAILURES = {
    ("null", "test_values_are_the_model_s"): "null computes nothing",
    ("null", "test_precision_is_that_of_the_artifact"): "null computes nothing",
    ("null", "test_provenance_names_what_computed"): "null computes nothing",
    ("null", "test_damaged_file_is_refused"): "null reads no file",
    ("tripy", "test_provenance_names_what_computed"): "an executable does not tell its kernels",
}


@pytest.fixture(scope="module", params=RUNTIMES.names())
def runtime(request: pytest.FixtureRequest) -> Runtime:
    name = request.param
    try:
        plugin = RUNTIMES.create(name)
        found = plugin.probe()
        missing = None if found.ok else found.reason
    except UnavailableError as error:
        missing = error.problem
    if missing:
        assert name not in REQUIRED, f"{name} is required here: {missing}"
        pytest.skip(missing)
    return plugin


@pytest.fixture(scope="module")
def forms(artifact_dir: Path, exported: Exported) -> Callable[..., Artifact]:
    """The model in the first form that a runtime takes."""
    graph = Artifact.load(artifact_dir)

    def form(accepts: frozenset[Format]) -> Artifact:
        if Format.ONNX in accepts:
            return graph
        if Format.CHECKPOINT in accepts:
            return graph.parent_checkpoint().artifact()
        target = next(route.format for route in ROUTES.values() if route.format in accepts)
        return Artifact.load(exported(target))

    return form


@pytest.fixture(scope="module")
def source(runtime: Runtime, forms: Callable[..., Artifact]) -> Artifact:
    return forms(runtime.accepts)


@pytest.fixture(scope="module")
def session(runtime: Runtime, source: Artifact) -> Iterator[Session]:
    """One for all that is asked of it: a compiler takes seconds, and what one question leaves
    behind must not alter the answer to the next."""
    with runtime.open(source, SessionOptions(threads=THREADS)) as opened:
        yield opened


@pytest.fixture
def fresh(runtime: Runtime, source: Artifact) -> Iterator[Session]:
    with runtime.open(source, SessionOptions(threads=THREADS)) as opened:
        yield opened


@pytest.fixture(autouse=True)
def expected_failure(request: pytest.FixtureRequest) -> None:
    """Marks what a runtime is known not to do."""
    if "runtime" in request.fixturenames:
        mark_expected(request, request.getfixturevalue("runtime").name, EXPECTED_FAILURES)


def feeds(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"input": rng.standard_normal((batch, 3, 32, 32)).astype(np.float32)}


def assert_same(found: np.ndarray, expected: np.ndarray, runtime: Runtime) -> None:
    """Bit for bit; on a GPU, where a session chooses algorithms by trying them, in float32."""
    if runtime.device == "cpu":
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_it_opens_what_is_said_of_it(runtime: Runtime) -> None:
    """Without importing it."""
    assert runtime.name == "null" or ACCEPTS[runtime.name] == runtime.accepts


def test_required_runtimes_are_registered() -> None:
    assert set(RUNTIMES.names()) >= REQUIRED


def test_probe_says_its_version(runtime: Runtime) -> None:
    found = runtime.probe()
    assert found.ok
    assert found.version
    assert runtime.name in RUNTIMES.names()


def test_signature_is_the_artifact_s(session: Session, source: Artifact) -> None:
    assert session.signature == source.signature


def test_batches_of_any_size_in_one_session(session: Session) -> None:
    for batch in (1, 3, 64, 1):
        outputs = session.run(feeds(batch))
        assert list(outputs) == ["logits"]
        assert outputs["logits"].shape == (batch, 10)
        assert outputs["logits"].dtype == np.float32


def test_values_are_the_model_s(session: Session, runtime: Runtime, checkpoint_dir: Path) -> None:
    source = Checkpoint.load(checkpoint_dir).artifact()
    tolerance = TOLERANCES["tf32" if runtime.name in TF32 else "float32"]
    for batch in (1, 3, 64):
        with RUNTIMES.create("torch").open(source, SessionOptions(threads=THREADS)) as reference:
            expected = reference.run(feeds(batch))
        found = compare_outputs(session.run(feeds(batch)), expected, tolerance)
        assert found.passed, found.reason


def test_rows_do_not_depend_on_their_neighbours(session: Session) -> None:
    whole = session.run(feeds(3))["logits"]
    for row in range(3):
        alone = session.run({"input": feeds(3)["input"][row : row + 1]})["logits"]
        np.testing.assert_allclose(alone[0], whole[row], rtol=1e-5, atol=1e-5)


def test_outputs_are_not_overwritten_by_later_runs(session: Session) -> None:
    first = session.run(feeds(3))["logits"]
    kept = first.copy()
    session.run(feeds(3, seed=1))
    np.testing.assert_array_equal(first, kept)


def test_outputs_belong_to_the_caller(session: Session) -> None:
    session.upload(feeds(2))
    session.forward()
    session.synchronize()
    first = session.download()["logits"]
    kept = first.copy()
    first[:] = np.nan
    np.testing.assert_array_equal(session.download()["logits"], kept)


def test_forward_can_be_repeated_on_what_was_uploaded(session: Session) -> None:
    expected = session.run(feeds(2))["logits"]
    session.upload(feeds(2))
    for _ in range(3):
        session.forward()
    session.synchronize()
    np.testing.assert_array_equal(session.download()["logits"], expected)


def test_inputs_are_left_alone(session: Session) -> None:
    given = feeds(2)
    kept = given["input"].copy()
    session.run(given)
    np.testing.assert_array_equal(given["input"], kept)


def test_new_inputs_of_the_same_shape_are_seen(session: Session, runtime: Runtime) -> None:
    one, other = session.run(feeds(2))["logits"], session.run(feeds(2, seed=1))["logits"]
    assert np.array_equal(one, other) is not runtime.computes


def test_strided_inputs_give_the_same(session: Session) -> None:
    dense = feeds(4)["input"]
    strided = np.asfortranarray(dense)
    assert not strided.flags.c_contiguous
    expected = session.run({"input": dense})["logits"]
    np.testing.assert_array_equal(session.run({"input": strided})["logits"], expected)


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({}, "missing"),
        ({"inputs": feeds(1)["input"]}, "'input' is missing"),
        ({**feeds(1), "more": np.zeros(1, np.float32)}, "'more'"),
        ({"input": feeds(1)["input"].astype(np.float64)}, "float64"),
        ({"input": np.zeros((1, 3, 28, 28), np.float32)}, "28"),
        ({"input": np.zeros((3, 32, 32), np.float32)}, "shape"),
        ({"input": [[1.0]]}, "list"),
    ],
)
def test_wrong_feeds_are_refused(session: Session, wrong: dict, names: str) -> None:
    good = session.run(feeds(1))["logits"]
    with pytest.raises(FeedError, match=names):
        session.run(wrong)
    np.testing.assert_array_equal(session.run(feeds(1))["logits"], good)


def test_a_pass_needs_inputs(fresh: Session) -> None:
    with pytest.raises(SessionError, match="no inputs"):
        fresh.forward()


def test_open_and_close_can_be_repeated(runtime: Runtime, source: Artifact) -> None:
    results = []
    for _ in range(3):
        with runtime.open(source, SessionOptions(threads=THREADS)) as session:
            results.append(session.run(feeds(1))["logits"])
    assert_same(results[0], results[2], runtime)


def test_sessions_at_work_at_the_same_time_do_not_disturb_each_other(
    runtime: Runtime, source: Artifact
) -> None:
    """More than the 8 that torch.compile allows of one code by default."""
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(runtime.open(source, SessionOptions(threads=THREADS)))
            for _ in range(9)
        ]
        mine = {id(session): feeds(2, seed) for seed, session in enumerate(sessions)}

        def run(session: Session) -> list[np.ndarray]:
            return [session.run(mine[id(session)])["logits"] for _ in range(20)]

        for session, repeated in zip(sessions, together(sessions, run), strict=True):
            alone = session.run(mine[id(session)])["logits"]
            for logits in repeated:
                np.testing.assert_allclose(logits, alone, rtol=1e-5, atol=1e-5)


def test_a_closed_session_refuses_work(runtime: Runtime, source: Artifact) -> None:
    session = runtime.open(source, SessionOptions(threads=THREADS))
    session.run(feeds(1))
    session.close()
    session.close()
    with pytest.raises(SessionError):
        session.upload(feeds(1))
    with pytest.raises(SessionError):
        session.forward()


@pytest.mark.all_cores
@pytest.mark.parametrize("threads", [1, 2])
def test_provenance_says_what_ran(runtime: Runtime, source: Artifact, threads: int) -> None:
    """In a process of its own, as `bench` does."""
    options = SessionOptions(threads=threads)
    with WorkerProcess(threads=threads, timeout_s=240) as worker:
        worker.open(runtime.name, [source], options, [feeds(1)])
        found = worker.provenance()
    assert found.runtime == runtime.name
    assert found.version == runtime.probe().version
    assert found.device == runtime.device
    assert found.threads == threads


def test_precision_is_that_of_the_artifact(
    session: Session, runtime: Runtime, source: Artifact
) -> None:
    session.run(feeds(1))
    allowed = {source.precision, "tf32"} if runtime.name in TF32 else {source.precision}
    assert source.precision == "float32"
    assert session.provenance().precision in allowed


def test_provenance_names_what_computed(session: Session) -> None:
    session.run(feeds(1))
    nodes = session.provenance().details["nodes"]
    assert all(node["name"] and node["operator"] and node["provider"] for node in nodes)
    assert {node["dtype"] for node in nodes} - {None} == {"float32"}


def test_asking_what_ran_leaves_the_session_as_it_was(session: Session, runtime: Runtime) -> None:
    expected = session.run(feeds(3))["logits"]
    first, second = session.provenance(), session.provenance()
    assert first.precision == second.precision
    assert first.details.get("operators") == second.details.get("operators")
    np.testing.assert_array_equal(session.download()["logits"], expected)
    other = session.run(feeds(5, seed=1))["logits"]
    assert other.shape == (5, 10)
    assert_same(session.run(feeds(3))["logits"], expected, runtime)


def test_what_ran_is_not_known_before_a_pass(fresh: Session) -> None:
    with pytest.raises(SessionError):
        fresh.provenance()


def test_damaged_file_is_refused(runtime: Runtime, source: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source.directory, copy)
    damaged = replace(source, directory=copy)
    content = damaged.path.read_bytes()
    damaged.path.write_bytes(content[: len(content) // 2])
    with pytest.raises((SourceError, IntegrityError)):
        runtime.open(damaged, SessionOptions(threads=THREADS))
