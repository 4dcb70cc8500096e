"""Every loop of every framework, on a GPU: `make gpu-check` runs this.

Without a GPU all of it is skipped, with the reason; so is a framework that finds none. torch must
find one where the environment variable GPU_RUNTIMES names torch-cuda.
"""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest

import toolkit
from toolkit.core.errors import UnavailableError
from toolkit.core.measurement import Row, Status
from toolkit.core.nvidia import driver
from toolkit.measuring.timing.engine import Procedure
from toolkit.trainers import TRAINERS

REQUIRED = {"torch"} if "torch-cuda" in os.environ.get("GPU_RUNTIMES", "") else set()
THREADS = 2  # several tests at a time share the cores
CLOSE = 1e-4
"""How far losses may be apart from those on a CPU, relatively: TF32, whose products have ten bits
of fraction, is further off."""


def modes() -> list[str]:
    found = []
    for name in TRAINERS.names():
        try:
            found += [f"{name}:{mode}" for mode in TRAINERS.create(name).modes]
        except UnavailableError:
            continue
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("results"))


@functools.cache
def trained(model: str, trainer: str, device: str, place: str) -> Row:
    """Three epochs on images of digits, in batches of 16."""
    (row,) = toolkit.bench_training(
        model,
        data="digits",
        trainers=[trainer],
        batches=[16],
        rows=400,
        device=device,
        threads=THREADS,
        procedure=Procedure(warmup=1, runs=2),
        out=place,
    ).rows
    return row


@pytest.mark.parametrize("trainer", modes())
@pytest.mark.parametrize(("model", "steps"), [("lenet", 20), ("resnet20", 2)])
def test_it_trains_the_same_model_as_on_a_cpu(
    model: str, steps: int, trainer: str, place: str
) -> None:
    """For as many steps as rounding leaves them together: batch norms spread it."""
    if reason := driver().reason:
        assert not REQUIRED, reason
        pytest.skip(reason)
    row = trained(model, trainer, "cuda", place)
    if row.status is Status.UNAVAILABLE:
        assert trainer.partition(":")[0] not in REQUIRED, row.reason
        pytest.skip(row.reason)
    assert row.status is Status.OK, row.reason
    assert row.provenance is not None
    assert "cpu" not in row.provenance.device.lower()
    on_cpu = trained(model, "torch:eager", "cpu", place)
    assert row.learning is not None
    assert on_cpu.learning is not None
    assert row.learning.start == on_cpu.learning.start
    found, expected = (np.array(one.learning.first_steps) for one in (row, on_cpu))
    assert len(found) == 20
    np.testing.assert_allclose(found[:steps], expected[:steps], rtol=CLOSE)
