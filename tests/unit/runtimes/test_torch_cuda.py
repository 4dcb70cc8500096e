"""The session of torch-cuda, run on torch's CPU device: what it asks of a device, and when.

FakeAccelerator stands for the calls that only a GPU answers: streams, events, pinned memory,
graphs. Copies and passes are real, and done when they are asked for. No time comes from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import pytest
import torch
from torch import nn

from models.torch.program import module_of
from runtimes.torch.accelerator import Accelerator
from runtimes.torch.cuda import CudaOptions, TorchCuda, index_for, open_on, parse
from runtimes.torch.device_session import TIMED_PASSES, TorchDeviceSession
from runtimes.torch.eager import TorchEager
from runtimes.torch.kernels import triton_nodes
from toolkit.core.artifact import Checkpoint
from toolkit.core.errors import SessionError, UnavailableError, UnknownNameError, UsageError
from toolkit.core.session import Session, SessionOptions
from toolkit.core.specs import Signature, TensorSpec

PAIRS = Signature(
    inputs=(
        TensorSpec(name="x", dtype="float32", shape=("batch", 4)),
        TensorSpec(name="n", dtype="int64", shape=("batch",)),
    ),
    outputs=(
        TensorSpec(name="sum", dtype="float32", shape=("batch", 4)),
        TensorSpec(name="twice", dtype="int64", shape=("batch",)),
    ),
)


@final
class FakeAccelerator(Accelerator):
    """Writes down what it is asked for."""

    device: ClassVar[str] = "cpu"

    def __init__(self, log: list[str] | None = None) -> None:
        self.log = [] if log is None else log
        self.marks = 0

    @contextmanager
    def queue(self) -> Iterator[None]:
        self.log.append("queue")
        yield

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        self.log.append("staging")
        return torch.empty(shape, dtype=dtype)

    def mark(self) -> int:
        self.marks += 1
        return self.marks

    def between_ms(self, start: int, end: int) -> float:
        return float(end - start)

    def captured(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        self.log.append("capture")
        result = work()

        def replay() -> None:
            self.log.append("replay")
            with torch.inference_mode():
                for kept, new in zip(result, work(), strict=True):
                    kept.copy_(new)

        return replay, result


class Pairs(nn.Module):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.log.append("pass")
        return x + n[:, None], 2 * n


def feeds(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((batch, 4)).astype(np.float32),
        "n": rng.integers(0, 9, batch),
    }


def total(given: dict[str, np.ndarray]) -> np.ndarray:
    return given["x"] + given["n"][:, None].astype(np.float32)


def session_of(log: list[str], *, graph: bool = False) -> TorchDeviceSession:
    return TorchDeviceSession(
        PAIRS,
        Pairs(log),
        accelerator=FakeAccelerator(log),
        runtime="torch-cuda",
        graph=graph,
        precision=lambda ran: ran,
        details=dict,
    )


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture(params=[False, True], ids=["eager", "graph"])
def session(request: pytest.FixtureRequest, log: list[str]) -> Iterator[Session]:
    with session_of(log, graph=request.param) as opened:
        yield opened


def test_a_run_copies_computes_copies_and_waits_once(log: list[str]) -> None:
    with session_of(log) as session:
        session.run(feeds(2))
        log.clear()
        session.run(feeds(2, seed=1))
        assert log == ["queue", "queue", "pass", "queue", "synchronize"]


def test_a_graph_is_captured_once_for_a_shape_and_replayed(log: list[str]) -> None:
    with session_of(log, graph=True) as session:
        for _ in range(3):
            session.run(feeds(2))
        assert (log.count("capture"), log.count("replay")) == (1, 3)
        session.run(feeds(3))
        assert (log.count("capture"), log.count("replay")) == (2, 4)


def test_values_and_shapes_are_those_of_the_inputs(session: Session) -> None:
    for batch, seed in ((2, 0), (2, 1), (5, 2), (1, 3), (2, 4)):
        given = feeds(batch, seed)
        found = session.run(given)
        np.testing.assert_array_equal(found["sum"], total(given))
        np.testing.assert_array_equal(found["twice"], 2 * given["n"])
        assert [array.dtype for array in found.values()] == [np.float32, np.int64]


def test_outputs_are_the_caller_s(session: Session) -> None:
    first = session.run(feeds(2))
    kept = {name: array.copy() for name, array in first.items()}
    session.run(feeds(2, seed=1))
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        assert array.base is None


def test_inputs_that_are_altered_after_the_upload_are_not_read_again(session: Session) -> None:
    """They lie on the device."""
    given = feeds(2)
    expected = total(given)
    session.upload(given)
    given["x"][:] = np.nan
    session.forward()
    np.testing.assert_array_equal(session.download()["sum"], expected)


def test_strided_and_read_only_inputs(session: Session) -> None:
    given = feeds(3)
    strided = np.asfortranarray(given["x"])
    strided.flags.writeable = False
    found = session.run({**given, "x": strided})
    np.testing.assert_array_equal(found["sum"], total(given))


def test_buffers_are_made_once_for_a_shape(log: list[str]) -> None:
    with session_of(log) as session:
        session.run(feeds(2))
        assert log.count("staging") == 4  # two inputs and two outputs
        session.run(feeds(2, seed=1))
        assert log.count("staging") == 4
        session.run(feeds(3))
        assert log.count("staging") == 8


def test_an_upload_waits_for_the_one_before_which_may_still_be_copied(log: list[str]) -> None:
    with session_of(log) as session:
        session.upload(feeds(2))
        session.upload(feeds(2, seed=1))
        assert log[-3:] == ["queue", "synchronize", "queue"]


def test_nothing_is_waited_for_by_a_pass(log: list[str]) -> None:
    with session_of(log) as session:
        session.upload(feeds(2))
        log.clear()
        for _ in range(3):
            session.forward()
        assert "synchronize" not in log
        session.synchronize()
        assert log.count("synchronize") == 1


def test_outputs_before_a_pass_are_refused(session: Session) -> None:
    session.upload(feeds(2))
    with pytest.raises(SessionError, match="no inputs"):
        session.download()


def test_the_device_s_times_are_medians_of_marks_around_each_part(session: Session) -> None:
    session.run(feeds(2))
    times = session.provenance().details["device_times_ms"]
    assert times == {
        "host_to_device": 1.0,
        "compute": 1.0,
        "device_to_host": 1.0,
        "passes": TIMED_PASSES,
    }


def test_a_model_on_it_says_what_ran_and_where(checkpoint_dir: Path) -> None:
    """The device comes from the operators of a pass, so here it is not the GPU."""
    source = Checkpoint.load(checkpoint_dir).artifact()
    given = {"input": np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)}
    with TorchEager().open(source, SessionOptions()) as reference:
        expected = reference.run(given)
    options = CudaOptions(others=SessionOptions(threads=2))
    with open_on(
        FakeAccelerator,
        source,
        module_of(source),
        runtime=TorchCuda.name,
        options=options,
        runs=lambda module: module,
    ) as session:
        np.testing.assert_array_equal(session.run(given)["logits"], expected["logits"])
        found = session.provenance()
    assert (found.runtime, found.device, found.precision) == ("torch-cuda", "cpu", "float32")
    assert found.threads == 2
    assert found.details["matmul_allow_tf32"] is found.details["cudnn_allow_tf32"] is False
    assert any("conv" in node["operator"] for node in found.details["nodes"])


def test_tf32_and_the_search_for_algorithms_are_off_unless_asked_for(checkpoint_dir: Path) -> None:
    source = Checkpoint.load(checkpoint_dir).artifact()
    for asked in (True, False):
        options = CudaOptions(tf32=asked, cudnn_benchmark=asked)
        open_on(
            FakeAccelerator,
            source,
            module_of(source),
            runtime=TorchCuda.name,
            options=options,
            runs=lambda module: module,
        ).close()
        assert torch.backends.cuda.matmul.allow_tf32 is asked
        assert torch.backends.cudnn.allow_tf32 is asked
        assert torch.backends.cudnn.benchmark is asked
        assert torch.get_float32_matmul_precision() == ("high" if asked else "highest")


def test_options_by_name() -> None:
    given = SessionOptions(
        threads=3, tuning={"tf32": "true", "cuda_graph": "1", "dtype": "float64"}
    )
    found = parse(given)
    assert (found.tf32, found.cuda_graph, found.cudnn_benchmark) == (True, True, False)
    assert found.others == SessionOptions(threads=3, tuning={"dtype": "float64"})
    with pytest.raises(UsageError, match="tf32"):
        parse(SessionOptions(tuning={"tf32": "maybe"}))


def test_an_unknown_option_is_named_with_the_nearest(checkpoint_dir: Path) -> None:
    source = Checkpoint.load(checkpoint_dir).artifact()
    with pytest.raises(UnknownNameError) as caught:
        TorchCuda().open(source, SessionOptions(tuning={"cuda_grap": "1"}))
    assert "'cuda_graph'" in caught.value.hint


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built with CUDA")
def test_a_build_for_the_cpu_is_unavailable_and_is_not_opened(checkpoint_dir: Path) -> None:
    found = TorchCuda().probe()
    assert (found.ok, found.version) == (False, torch.__version__)
    assert found.reason == f"torch {torch.__version__} is built without CUDA"
    assert "https://download.pytorch.org/whl/cu" in (found.hint or "")
    with pytest.raises(UnavailableError, match="built without CUDA"):
        TorchCuda().open(Checkpoint.load(checkpoint_dir).artifact(), SessionOptions())


@pytest.mark.parametrize(
    ("driver", "index"),
    [(None, "cu130"), ("13.1", "cu130"), ("12.9", "cu128"), ("12.6", "cu126"), ("12.2", "cu126")],
)
def test_the_index_is_the_newest_that_the_driver_runs(driver: str | None, index: str) -> None:
    assert index_for(driver) == index


GENERATED = """
triton_poi_fused_relu_0 = async_compile.triton('triton_poi_fused_relu_0', '''
import triton
@triton_heuristics.pointwise(
    size_hints={'x': 1024}, filename=__file__,
    triton_meta={'signature': {'in_ptr0': '*bf16', 'in_out_ptr0': '*fp32', 'xnumel': 'i32', 'XBLOCK': 'constexpr'}, 'device': DeviceProperties(type='cuda', index=0), 'constants': {}},
)
''', device_str='cuda')
triton_poi_fused_gather_1 = async_compile.triton('triton_poi_fused_gather_1', '''
    triton_meta={'signature': {'in_ptr0': '*fp32', 'out_ptr0': '*i64', 'xnumel': 'i32'}, 'constants': {}},
''', device_str='cuda')
"""  # noqa: E501


def test_kernels_in_triton_are_named_with_what_they_write() -> None:
    """As torch/_inductor/codegen/triton.py of 2.13 writes them."""
    first, second = triton_nodes(GENERATED)
    assert (first.name, first.provider, first.dtype) == (
        "triton_poi_fused_relu_0", "cuda", "float32",
    )  # fmt: skip
    assert (second.name, second.dtype) == ("triton_poi_fused_gather_1", None)
