"""What is said against a figure, and when."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from toolkit.core.measurement import Block, Measurement, Row, Scope, Status
from toolkit.measuring.figures.warnings import load_warnings, machine_warnings, row_warnings
from toolkit.measuring.machine.environment import available_cores, describe_environment
from toolkit.measuring.timing.cpu_contention import LoadMeter, OtherLoad, Usage
from toolkit.measuring.timing.engine import Procedure

NOISY = (80, 120, 90, 110, 100, 100, 85, 115)
SPIN = "print(flush=True)\nwhile True: pass"


def usage(**values: float) -> Usage:
    return Usage(**{"wall_s": 0.0, "busy_s": 0.0, "ours_s": 0.0, "stolen_s": 0.0, **values})


def test_shares_are_of_the_whole_machine() -> None:
    last = usage(wall_s=10, busy_s=13, ours_s=8, stolen_s=1)
    assert OtherLoad.between(usage(), last, cores=2) == OtherLoad(
        others=0.25, stolen=0.05, wall_s=10
    )


def test_counters_that_lag_give_no_negative_share() -> None:
    last = usage(wall_s=1, busy_s=1, ours_s=1.01)
    assert OtherLoad.between(usage(), last, cores=2).others == 0
    assert OtherLoad.between(usage(), usage(), cores=2).others == 0


def test_a_busy_process_is_other_work_unless_it_is_measured() -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE) as spinner:
        assert spinner.stdout is not None
        spinner.stdout.readline()
        others, known = LoadMeter([]), LoadMeter([spinner.pid])
        with pytest.raises(subprocess.TimeoutExpired):
            spinner.wait(timeout=1)
        gap = others.read().others - known.read().others
        spinner.kill()
    assert gap > 0.1 / available_cores()


def test_a_process_that_is_gone_took_nothing() -> None:
    assert LoadMeter([2**22 + 1]).read().others >= 0


def test_a_process_that_ended_meanwhile_is_counted() -> None:
    code = "import time\nwhile time.process_time() < 0.5: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        first = Usage.now([process.pid])
        process.wait()
        last = Usage.now([process.pid])
    assert last.ours_s - first.ours_s > 0.3


def test_load_is_said_above_its_bounds_only() -> None:
    assert load_warnings("here", OtherLoad(others=0.05, stolen=0.02)) == []
    others, stolen = load_warnings("here", OtherLoad(others=0.3, stolen=0.1))
    assert "here: other work took 30%" in others
    assert "hypervisor took 10%" in stolen


def environment(**cpu: object) -> dict:
    return {"cpu": {"container_cores": None, "governor": None, **cpu}}


@pytest.mark.parametrize(
    ("threads", "cpu", "says"),
    [
        (available_cores() + 1, {}, "available cores"),
        (1, {"container_cores": 0.5}, "the container may use 0.5 cores"),
        (1, {"governor": "powersave"}, "governor is powersave"),
    ],
)
def test_the_machine_is_doubted(threads: int, cpu: dict, says: str) -> None:
    (warning,) = machine_warnings(threads, environment(**cpu))
    assert says in warning


def test_clients_share_the_cores() -> None:
    clients = available_cores() + 1
    (warning,) = machine_warnings(1, environment(), clients)
    assert f"{clients} clients of 1 threads each" in warning
    assert f"Give --threads 1 --concurrency {clients - 1}." in warning
    assert machine_warnings(1, environment(container_cores=1.0), 1) == []
    (warning,) = machine_warnings(1, environment(container_cores=0.5), 1)
    assert "1 threads, but the container" in warning
    assert "Give --threads 1, or" in warning


def test_a_machine_in_order_is_not() -> None:
    assert machine_warnings(1, environment(governor="performance", container_cores=4.0)) == []
    assert isinstance(machine_warnings(1, describe_environment()), list)


def row(*levels: float, settled: bool = True, runs: int = 20) -> Row:
    """A row with a block of each level; four blocks at a time are of one process."""
    blocks = tuple(
        Block(round=i, process=i // 4, lead=np.array([1]), samples=np.full(runs, level))
        for i, level in enumerate(levels)
    )
    measurement = Measurement(
        scope=Scope.FORWARD, warmup=np.array([1]), settled=settled, blocks=blocks
    )
    return Row(
        runtime="rt", artifact="a", artifact_digest="d", batch=1, status=Status.OK,
        precision_requested="float32", measurements=(measurement,),
    )  # fmt: skip


def growing(*sizes_mib: float) -> Row:
    """A row whose process has these resident sizes after its blocks of 20 runs and a lead of 1."""
    found = row(*[100.0] * len(sizes_mib))
    (measurement,) = found.measurements
    blocks = tuple(
        replace(block, process=0, rss_bytes=round(size * 2**20))
        for block, size in zip(measurement.blocks, sizes_mib, strict=True)
    )
    return replace(found, measurements=(replace(measurement, blocks=blocks),))


def test_a_leak_is_said_with_its_size_for_a_thousand_runs() -> None:
    alone, warning = row_warnings([growing(*(100 + 3 * i for i in range(9)))], Procedure())
    assert "in one process" in alone
    assert "batch 1, forward: the resident size grew steadily" in warning
    assert f"rt (+18 MiB, {3 * 1024 * 1000 / 21:,.0f} KiB per 1,000 runs)" in warning


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (row(*[100.0] * 12), []),
        (row(*[100.0] * 12, settled=False), ["did not settle"]),
        (row(*[100.0, 100.0, 120.0, 120.0] * 3), ["rt (+20%)"]),
        (row(*[100.0] * 4, *[104.0] * 4, *[120.0] * 4), ["rt (±"]),
        (row(*[100.0] * 6, runs=1), ["fewer than 11 samples: rt (6)"]),
    ],
)
def test_samples_speak_against_their_figures(found: Row, says: list[str]) -> None:
    warnings = row_warnings([found], Procedure())
    assert len(warnings) == len(says)
    for warning, part in zip(warnings, says, strict=True):
        assert part in warning
        assert "batch 1, forward" in warning


def test_a_row_that_ended_early_does_not_make_all_rows_ones_of_one_process() -> None:
    warnings = row_warnings([row(*[100.0] * 12), row(*[100.0] * 4)], Procedure())
    assert not any("in one process" in warning for warning in warnings)


def test_a_fixed_number_of_runs_is_narrowed_by_more_of_them() -> None:
    levels = [*NOISY, *(level + 3 for level in NOISY), *NOISY]
    found = row(*levels)
    (measurement,) = found.measurements
    blocks = tuple(replace(block, process=i // 8) for i, block in enumerate(measurement.blocks))
    rows = [replace(found, measurements=(replace(measurement, blocks=blocks),))]
    (wide,) = [text for text in row_warnings(rows, Procedure(runs=480)) if "wider" in text]
    assert "more --runs" in wide


def test_processes_that_differ_alike_in_two_rows_are_those_of_the_machine() -> None:
    rng = np.random.default_rng(0)
    common = np.repeat([1.0, 1.2, 0.9, 1.1], 8)

    def in_turn(level: float) -> Row:
        found = row(*(level * common * np.exp(rng.normal(0, 0.01, 32))))
        (measurement,) = found.measurements
        blocks = tuple(replace(block, process=i // 8) for i, block in enumerate(measurement.blocks))
        return replace(found, measurements=(replace(measurement, blocks=blocks),))

    both = [in_turn(100), in_turn(300)]
    (wide,) = [text for text in row_warnings(both, Procedure()) if "wider" in text]
    assert wide.count("a quieter machine") == 2
    (wide,) = [text for text in row_warnings(both[:1], Procedure()) if "wider" in text]
    assert "more --processes" in wide


def test_one_process_is_said_once() -> None:
    alone = row(*[100.0] * 4)
    (warning,) = row_warnings([alone, alone], Procedure(processes=1))
    assert "there are no intervals and no verdicts" in warning
    assert "--processes 5" in warning


@pytest.mark.parametrize(
    ("levels", "disturbance", "remedy"),
    [
        ([*NOISY, *(level + 3 for level in NOISY), *NOISY], 0.0, "more --max-seconds"),
        ([*[100] * 8, *[130] * 8, *[100] * 8], 0.0, "more --processes"),
        ([*[100] * 8, *[130] * 8, *[100] * 8], 0.2, "no other work"),
        ([*range(100, 116, 2), *range(110, 126, 2), *range(130, 146, 2)], 0.0, "a quieter machine"),
        ([*[100] * 4, *[130] * 4, *[100] * 4], 0.0, "more --max-seconds or --processes"),
    ],
)
def test_a_wide_interval_is_said_with_what_would_narrow_it(
    levels: list[float], disturbance: float, remedy: str
) -> None:
    """A third of the blocks is of each of three processes."""
    found = row(*levels)
    (measurement,) = found.measurements
    blocks = tuple(
        replace(block, process=3 * i // len(levels)) for i, block in enumerate(measurement.blocks)
    )
    changed = replace(measurement, blocks=blocks, disturbance=disturbance)
    warnings = row_warnings([replace(found, measurements=(changed,))], Procedure())
    (wide,) = [warning for warning in warnings if "wider than" in warning]
    assert remedy in wide
