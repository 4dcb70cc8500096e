"""The timed loop on the null runtime's session, with a clock that the test controls."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import final

import numpy as np
import pytest

from runtimes.null import Null
from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import SessionError
from toolkit.core.measurement import Scope
from toolkit.core.session import Provenance, Session, SessionOptions
from toolkit.core.specs import Feeds, ModelSpec, Outputs, Signature, TensorSpec
from toolkit.measuring.timing.clock import time_block

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 2)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 3)),),
)
SETS = [{"x": np.full((1, 2), i, np.float32)} for i in range(3)]


@final
class FakeClock:
    """Goes on by the same step each time it is read, or by `skip`."""

    def __init__(self, step_ns: int = 7) -> None:
        self._step_ns = step_ns
        self._now_ns = 0

    def __call__(self) -> int:
        self._now_ns += self._step_ns
        return self._now_ns

    def skip(self, ns: int) -> None:
        self._now_ns += ns


@final
class FakeSession(Session):
    """Records its calls; each takes a known time on the clock. Raises in pass `fails_at`."""

    UPLOAD, FORWARD, SYNCHRONIZE, DOWNLOAD = 1_000, 20_000, 300_000, 4_000_000

    def __init__(self, clock: FakeClock, fails_at: int | None = None) -> None:
        super().__init__(SIGNATURE)
        self.uploaded: list[int] = []
        self.collecting: list[bool] = []
        self._clock = clock
        self._fails_at = fails_at

    def _prepare(self, dims: Mapping[str, int]) -> None:
        pass

    def _upload(self, feeds: Feeds) -> None:
        self.uploaded.append(int(feeds["x"][0, 0]))
        self._clock.skip(self.UPLOAD)

    def forward(self) -> None:
        if len(self.collecting) == self._fails_at:
            raise RuntimeError("broken pass")
        self.collecting.append(gc.isenabled())
        self._clock.skip(self.FORWARD)

    def synchronize(self) -> None:
        self._clock.skip(self.SYNCHRONIZE)

    def _download(self) -> Outputs:
        self.synchronize()
        self._clock.skip(self.DOWNLOAD)
        return {}

    def _provenance(self) -> Provenance:
        raise NotImplementedError

    def _close(self) -> None:
        pass


@pytest.fixture
def null_session() -> Iterator[Session]:
    artifact = Artifact(
        model=ModelSpec(name="m", family="f", framework="none", signature=SIGNATURE),
        format=Format.ONNX,
        precision="float32",
        signature=SIGNATURE,
        directory=Path("/nowhere"),
        entry="model.onnx",
        digest="sha256:0",
        files={},
    )
    with Null().open(artifact, SessionOptions()) as session:
        yield session


@pytest.fixture(params=[True, False], ids=["gc-on", "gc-off"])
def collecting(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Python's garbage collector in the state that it gives."""
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("count", [0, 1, 25])
def test_a_sample_for_each_run_of_what_the_clock_says(
    null_session: Session, scope: Scope, count: int
) -> None:
    samples = time_block(null_session, scope, SETS, count, 0, FakeClock(7))
    assert samples.dtype == np.int64
    assert samples.tolist() == [7] * count


def test_forward_times_pass_and_synchronisation_only() -> None:
    clock = FakeClock(7)
    samples = time_block(FakeSession(clock), Scope.FORWARD, SETS, 4, 0, clock)
    assert samples.tolist() == [FakeSession.FORWARD + FakeSession.SYNCHRONIZE + 7] * 4


def test_end_to_end_times_the_whole_way() -> None:
    clock = FakeClock(7)
    samples = time_block(FakeSession(clock), Scope.END_TO_END, SETS, 4, 0, clock)
    assert samples.tolist() == [4_321_000 + 7] * 4


def test_end_to_end_rotates_inputs_and_goes_on_in_the_next_block() -> None:
    session = FakeSession(clock := FakeClock())
    time_block(session, Scope.END_TO_END, SETS, 4, 0, clock)
    time_block(session, Scope.END_TO_END, SETS, 3, 4, clock)
    assert session.uploaded == [0, 1, 2, 0, 1, 2, 0]


def test_forward_uploads_one_set_a_block_and_the_next_block_another() -> None:
    session = FakeSession(clock := FakeClock())
    for first in (0, 4, 8):
        time_block(session, Scope.FORWARD, SETS, 4, first, clock)
    assert session.uploaded == [0, 1, 2]


@pytest.mark.parametrize("scope", Scope)
def test_the_collector_rests_and_is_put_back(collecting: bool, scope: Scope) -> None:
    session = FakeSession(clock := FakeClock())
    time_block(session, scope, SETS, 3, 0, clock)
    assert session.collecting == [False] * 3
    assert gc.isenabled() is collecting


@pytest.mark.parametrize("scope", Scope)
def test_the_collector_is_put_back_when_a_run_raises(collecting: bool, scope: Scope) -> None:
    session = FakeSession(clock := FakeClock(), fails_at=2)
    with pytest.raises((RuntimeError, SessionError), match="broken pass"):
        time_block(session, scope, SETS, 5, 0, clock)
    assert len(session.collecting) == 2
    assert gc.isenabled() is collecting
