"""A study on a real Ray cluster of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.conftest import TOOLKIT

STUDY = """
[[train]]
model = "mlp"
data = "diabetes"
seed = [0, 1, 2, 3]
epochs = 2

[[export]]
to = "onnx"

[[bench]]
runtimes = ["onnxruntime"]
runs = 12
warmup = 1
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
    assert [one["state"] for one in found] == ["done"] * 12
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 12
