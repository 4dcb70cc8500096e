"""An executable on the runtime: what is waited for, whose the outputs are, what is refused."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import nvtripy as tp
import pytest

from runtimes import tripy as own
from runtimes.tripy import Tripy, TripySession
from tests.with_tripy.test_export import exported
from tests.with_tripy.twins import Twins
from toolkit.core import nvidia
from toolkit.core.artifact import Artifact
from toolkit.core.errors import FeedError, SessionError, SourceError, UnknownNameError, UsageError
from toolkit.core.nvidia import Driver, Gpu
from toolkit.core.session import SessionOptions

TWINS = Twins("lenet")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return exported(TWINS, tmp_path_factory.mktemp("tripy"))


@pytest.fixture
def session(artifact: Artifact) -> Any:
    with Tripy().open(artifact, SessionOptions()) as found:
        assert isinstance(found, TripySession)
        yield found


def feeds(batch: int) -> dict[str, np.ndarray]:
    return {"input": TWINS.rows(batch)}


def close(found: dict[str, np.ndarray], batch: int) -> bool:
    expected = TWINS.expected(batch)
    return bool(np.abs(found["logits"] - expected).max() <= 1e-6 * np.ptp(expected))


def waits(session: Any) -> int:
    return session._executable.stream._active_cuda_stream.waits


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_saved_executable_gives_torch_s_outputs(session: Any, batch: int) -> None:
    found = session.run(feeds(batch))
    assert close(found, batch)
    assert found["logits"].dtype == np.float32
    assert found["logits"].flags.c_contiguous


def test_a_run_waits_once(session: Any) -> None:
    for _ in range(3):
        before = waits(session)
        session.run(feeds(2))
        assert waits(session) == before + 1


def test_a_pass_is_only_enqueued_and_nothing_is_there_before_it_was_waited_for(
    session: Any,
) -> None:
    before = waits(session)
    session.upload(feeds(3))
    session.forward()
    assert waits(session) == before
    early = np.from_dlpack(tp.copy(session._outputs, tp.device("cpu")))
    assert np.isnan(early).all()
    session.synchronize()
    assert waits(session) == before + 1
    assert close(session.download(), 3)


def test_one_upload_serves_many_passes(session: Any) -> None:
    session.upload(feeds(3))
    for _ in range(4):
        session.forward()
    assert close(session.download(), 3)
    assert close(session.download(), 3)


def test_outputs_are_the_caller_s_own(session: Any) -> None:
    first = session.run(feeds(3))
    kept = first["logits"].copy()
    second = session.run(feeds(1))
    assert not np.shares_memory(first["logits"], second["logits"])
    np.testing.assert_array_equal(first["logits"], kept)
    first["logits"][...] = 7
    assert close(session.run(feeds(3)), 3)


def test_inputs_that_are_replaced_stay_while_a_pass_reads_them(session: Any) -> None:
    session.upload(feeds(1))
    session.forward()
    session.upload(feeds(3))
    session.forward()
    assert close(session.download(), 3)
    assert session._replaced == []


def test_memory_is_let_go_without_a_collection_of_garbage(session: Any) -> None:
    """While a block is timed there is none."""
    held = []
    gc.disable()
    try:
        for _ in range(3):
            session.run(feeds(2))
            tensors = (*session._host, *session._inputs, session._outputs)
            held.append([weakref.ref(each.trace_tensor.producer.data) for each in tensors])
            del tensors
    finally:
        gc.enable()
    alive = [sum(each() is not None for each in of_run) for of_run in held]
    assert alive == [0, 0, 3]


def test_any_layout_of_the_caller_s_arrays_will_do(session: Any) -> None:
    rows = TWINS.rows(3)
    strided = np.asfortranarray(rows)
    fixed = rows.copy()
    fixed.flags.writeable = False
    for array in (strided, fixed, np.repeat(rows, 2, axis=0)[::2]):
        assert close(session.run({"input": array}), 3)
    assert not fixed.flags.writeable


def test_a_batch_that_it_was_not_compiled_for_is_refused(session: Any) -> None:
    with pytest.raises(
        FeedError, match=r"\[65, 3, 32, 32\].*\[1, 3, 32, 32\] to \[64, 3, 32, 32\]"
    ):
        session.run({"input": np.zeros((65, 3, 32, 32), np.float32)})
    assert close(session.run(feeds(3)), 3)


def test_there_is_no_pass_before_an_upload_and_after_the_end(artifact: Artifact) -> None:
    session = Tripy().open(artifact, SessionOptions())
    with pytest.raises(SessionError):
        session.forward()
    session.run(feeds(1))
    session.close()
    session.close()
    for use in (session.forward, session.download, session.provenance):
        with pytest.raises(SessionError):
            use()


@pytest.mark.parametrize(("capability", "precision"), [(75, "float32"), (80, "tf32"), (89, "tf32")])
def test_it_says_what_it_multiplies_in(
    session: Any, monkeypatch: pytest.MonkeyPatch, capability: int, precision: str
) -> None:
    gpu = Gpu(name="a GPU", capability=capability, memory_bytes=1)
    for module in (own, nvidia):
        monkeypatch.setattr(module, "driver", lambda: Driver(version="13.0", gpus=(gpu,)))
    session.run(feeds(1))
    found = session.provenance()
    assert (found.runtime, found.version, found.device) == ("tripy", tp.__version__, "cuda")
    assert found.precision == precision
    assert found.details["gpu"] == "a GPU"
    assert found.details["tensorrt"] == "10.15.0+double"
    assert (found.details["tf32"] is None) is (precision == "float32")


def test_options_that_it_has_not_are_refused(artifact: Artifact) -> None:
    with pytest.raises(UsageError, match="without optimisation"):
        Tripy().open(artifact, SessionOptions(optimize=False))
    with pytest.raises(UnknownNameError):
        Tripy().open(artifact, SessionOptions(tuning={"streams": "2"}))


@pytest.mark.parametrize("content", ["", "{}", '{"tripy_class": "Executable"}'])
def test_what_is_no_executable_is_refused(tmp_path: Path, content: str) -> None:
    artifact = exported(TWINS, tmp_path)
    artifact.path.write_text(content)
    with pytest.raises(SourceError, match="could not load"):
        Tripy().open(artifact, SessionOptions())


def test_it_can_be_used_where_the_driver_lists_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: Driver(reason="the NVIDIA driver lists no GPU"))
    found = Tripy().probe()
    assert (found.ok, found.version) == (False, tp.__version__)
    assert found.reason == "the NVIDIA driver lists no GPU"
    gpu = Gpu(name="a GPU", capability=89, memory_bytes=1)
    monkeypatch.setattr(nvidia, "driver", lambda: Driver(version="13.0", gpus=(gpu,)))
    assert Tripy().probe().ok
    theirs = {"nvtripy": tp.__version__, "tensorrt": "11.4.0"}
    monkeypatch.setattr(nvidia, "installed", theirs.get)
    found = Tripy().probe()
    assert not found.ok
    assert "TensorRT 11.4.0 is installed" in (found.reason or "")
