"""A machine in a line, as cells and reports name it."""

from __future__ import annotations

import pytest

from toolkit.measuring.machine.environment import describe_environment, machine_of


@pytest.mark.parametrize(
    ("cores", "gpus", "told"),
    [
        ((1.5, 8, 16), [], "Some CPU, 1.5 cores"),
        ((None, 8, 16), None, "Some CPU, 8 cores"),
        ((None, None, 16), [{"name": "H100"}], "Some CPU, 16 cores, H100"),
    ],
)
def test_it_names_processor_cores_and_gpus(cores, gpus, told) -> None:
    names = ("container_cores", "available_cores", "logical_cores")
    cpu = {"model": "Some CPU", **dict(zip(names, cores, strict=True))}
    assert machine_of({"cpu": cpu, "gpus": gpus}) == told


def test_it_names_this_machine() -> None:
    assert " cores" in machine_of(describe_environment())
