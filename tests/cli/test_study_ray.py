"""A study on a real Ray cluster of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.conftest import TOOLKIT, Run
from toolkit.core.interrupts import SIGNALS
from toolkit.core.progress import Silent
from toolkit.study.ray_executor import RayExecutor

STUDY = """
[[train]]
model = "mlp"
data = "diabetes"
seed = [0, 1]
epochs = 2

[[export]]
to = "onnx"
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield found
    ray.shutdown()
    found.shutdown()


def test_cells_of_a_node_that_was_killed_run_again(cluster: Cluster, tmp_path: Path) -> None:
    """Both nodes are of one machine, so that one cell runs at a time; the node of the first is
    killed, and all that is left runs on the other."""
    second = cluster.add_node(num_cpus=1)
    (tmp_path / "s.toml").write_text(STUDY)
    process = subprocess.Popen(
        [TOOLKIT, "study", "run", "s.toml", "--out", "out", "--executor", "ray", "--address",
         cluster.address, "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    killed = False
    with process:
        for line in process.stderr:
            lines.append(line)
            if f"({second.node_id[:8]})" in line and not killed:
                time.sleep(1)
                cluster.remove_node(second, allow_graceful=False)
                killed = True
        out = process.stdout.read()
    told = "".join(lines)
    assert process.returncode == 0, told
    assert killed
    assert "its machine was lost; it runs again elsewhere" in told
    found = json.loads(out)["cells"]
    assert [one["state"] for one in found] == ["done"] * 4
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 4


def test_a_cell_goes_to_the_gpu_that_it_asks_for(
    cluster: Cluster, toolkit_cli: Run, tmp_path: Path
) -> None:
    """The node only says that it has one: there is none here, and the cell says so."""
    fake = cluster.add_node(num_cpus=1, num_gpus=1, resources={"accelerator_type:H100": 1})
    (tmp_path / "s.toml").write_text(
        """
        [[train]]
        model = "mlp"
        data = "diabetes"
        epochs = 1
        seed = [0, 1]
        device = "cuda"
        gpu = "H100"
        """
    )
    run = ("study", "run", "s.toml", "--executor", "ray", "--address", cluster.address)
    done = toolkit_cli(*run, "--out", "out", "--json")
    cells = json.loads(done.stdout)["cells"]
    assert len(cells) == 2
    for cell in cells:
        assert f"{cell['id']} on " in done.stderr
        assert cell["state"] == "failed"
        assert "asks for a GPU H100; this machine has none" in cell["reason"]
    placed = [line for line in done.stderr.splitlines() if line.endswith(")") and " on " in line]
    assert [line[-9:-1] for line in placed] == [fake.node_id[:8]] * 2

    (tmp_path / "s.toml").write_text((tmp_path / "s.toml").read_text().replace("H100", "A100"))
    done = toolkit_cli(*run, "--out", "other")
    assert done.returncode == 3, done.stderr
    assert "No machine of the cluster can run what is left" in done.stderr


def test_a_run_that_loses_the_head_ends_with_advice(cluster: Cluster, tmp_path: Path) -> None:
    """Ray itself would end the process after a minute with 1, the code of a failed check."""
    (tmp_path / "s.toml").write_text(
        '[[train]]\nmodel = "mlp"\ndata = "diabetes"\nepochs = 100000\n'
    )
    process = subprocess.Popen(
        [TOOLKIT, "study", "run", "s.toml", "--out", "out", "--executor", "ray", "--address",
         cluster.address],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    with process:
        next(line for line in process.stderr if " on " in line)
        cluster.head_node.kill_gcs_server(check_alive=False)
        told = process.stderr.read()
    assert process.returncode == 3, told
    assert "The head of the Ray cluster at" in told
    assert "cells that are done are kept" in told
    assert "Traceback" not in told
    assert list((tmp_path / "out" / "cells").iterdir()) == []


def test_ray_leaves_the_handlers_of_signals_alone(cluster: Cluster) -> None:
    """Its own would end a command on SIGTERM with code 15, ignored by the caller or not."""
    before = [signal.getsignal(number) for number in SIGNALS]
    executor = RayExecutor(Silent(), cluster.address)
    try:
        assert [signal.getsignal(number) for number in SIGNALS] == before
    finally:
        executor.close()
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
