"""Executor that runs cells on the machines of a Ray cluster."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, final

from toolkit.core.errors import ToolkitError, UnavailableError
from toolkit.core.files import digest_bytes
from toolkit.core.interrupts import handlers_kept
from toolkit.core.progress import Progress, Silent
from toolkit.core.temporary import scratch_directory
from toolkit.study.executor import Executor
from toolkit.study.job import Job
from toolkit.study.packing import packed, unpack
from toolkit.study.process import CellProcess
from toolkit.study.store import CELLS, Outcome, Store

LOOK_EVERY_S = 1.0
TRIES = 5
PREFIX = "accelerator_type:"  # of the resource of a Ray node that names its GPU type


@final
class RayExecutor(Executor):
    """Executor that runs cells on a Ray cluster, at most one at a time on each machine.

    `address` is that of a cluster, which needs the toolkit on each machine. Without it, Ray uses
    the cluster in RAY_ADDRESS or the last one started on this machine, or else starts one here.
    Each cell reserves all CPUs and GPUs of its node, so that measurements do not disturb each
    other. Nodes with the same IP address count as one machine.

    The cells that a cell depends on are put into Ray's object store, once per digest. A cell whose
    machine is lost has no outcome and can be started again; a cell that fails has a failed outcome.
    Raises UnavailableError if Ray cannot be imported or no cluster answers.
    """

    def __init__(self, progress: Progress, address: str | None) -> None:
        try:
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
        except ImportError as error:
            raise UnavailableError(
                f"Ray could not be imported: {error}.",
                hint="Install it: pip install 'inference-toolkit[ray]'",
            ) from error
        self._ray, self._affinity, self._progress = ray, NodeAffinitySchedulingStrategy, progress
        self._aside = contextlib.redirect_stdout(sys.stderr)  # messages of Ray about its nodes
        self._aside.__enter__()
        try:
            with handlers_kept():  # Ray's SIGTERM handler exits with another code
                ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            self._aside.__exit__(None, None, None)
            raise UnavailableError(
                f"No Ray cluster answers at {address}: {error}.",
                hint="Start one with `ray start --head`, and give its address, or leave out "
                "--address to start one here.",
            ) from error
        self._head = _Head(ray.get_runtime_context().gcs_address)
        self._remote = ray.remote(max_retries=0)(run_cell)
        self._running: dict[Any, tuple[Job, str]] = {}
        self._sent: dict[str, Any] = {}
        self._turns: Counter[str] = Counter()

    def free(self) -> bool:
        return bool(self._idle_nodes())

    def able(self, job: Job) -> bool:
        return self._node_for(job) is not None

    def _node_for(self, job: Job) -> Mapping[str, Any] | None:
        """Return the idle node with the GPU that the cell needs, None if there is none.

        Of several nodes, return the one on which the fewest cells were started.
        """
        kind, cuda = job.values.get("gpu"), job.values.get("device") == "cuda"
        able = [
            node
            for node in self._idle_nodes()
            if (kind is None or f"{PREFIX}{kind}" in node["Resources"])
            and (not cuda or node["Resources"].get("GPU"))
        ]
        return min(able, key=lambda node: self._turns[node["NodeID"]], default=None)

    def _idle_nodes(self) -> list[Mapping[str, Any]]:
        """Return the live nodes with CPUs on machines that run no cell of this study."""
        self._head.check()
        busy = {machine for _, machine in self._running.values()}
        return [
            node
            for node in self._ray.nodes()
            if node["Alive"]
            and node["NodeManagerAddress"] not in busy
            and node["Resources"].get("CPU")
        ]

    def start(self, job: Job) -> None:
        node = self._node_for(job)
        assert node is not None
        resources = node["Resources"]
        directory = Path(job.directory)
        stands_on = {}
        for id in _all_grounds(job):
            data = packed(directory / CELLS / id)
            digest = digest_bytes(data)
            if digest not in self._sent:
                self._sent[digest] = self._ray.put(data)
            stands_on[id] = (digest, self._sent[digest])
        task = self._remote.options(
            num_cpus=resources["CPU"],
            num_gpus=resources.get("GPU", 0),
            scheduling_strategy=self._affinity(node["NodeID"], soft=False),
        ).remote(job.to_text(), stands_on)
        self._running[task] = job, node["NodeManagerAddress"]
        self._turns[node["NodeID"]] += 1
        self._progress.note(f"{job.id} on {node['NodeManagerHostname']} ({node['NodeID'][:8]})")

    def wait(self) -> tuple[Job, Outcome | None]:
        if not self._running:
            alive = sum(node["Alive"] for node in self._ray.nodes())
            raise ToolkitError(
                f"No machine of the cluster can run what is left; {alive} nodes are alive.",
                hint="Add the machines that are missing, and run the same command again: what is "
                "done stays.",
            )
        ended: list[Any] = []
        while not ended:
            self._head.check()
            ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=LOOK_EVERY_S)
        task = ended[0]
        job, _ = self._running.pop(task)
        try:
            digest, data = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            raise ToolkitError(
                f"{job.id} could not be run on its machine: {error}",
                hint="Check that the same version of the toolkit is installed there.",
            ) from error
        except self._ray.exceptions.RayError:
            return job, None
        unpack(data, digest, job.place)
        return job, Store(directory=Path(job.directory)).outcome(job.id)

    def close(self) -> None:
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._running.clear()
        self._ray.shutdown()
        self._aside.__exit__(None, None, None)


@final
class _Head:
    """Head of the cluster, with the address `HOST:PORT` of its control service (GCS)."""

    def __init__(self, address: str) -> None:
        self._address = address

    def check(self) -> None:
        """Raise ToolkitError if nothing answers at the address in TRIES attempts.

        Without this check, Ray would wait for a minute and end this process with exit code 1.
        """
        host, _, port = self._address.rpartition(":")
        for left in reversed(range(TRIES)):
            try:
                socket.create_connection(
                    (host.strip("[]"), int(port)), timeout=LOOK_EVERY_S
                ).close()
                return
            except OSError as error:
                if left == 0:
                    raise ToolkitError(
                        f"The head of the Ray cluster at {self._address} does not answer: {error}.",
                        hint="Start it and the other machines again, and run the same command "
                        "with the new --address: cells that are done are kept.",
                    ) from error
                time.sleep(LOOK_EVERY_S)


def _all_grounds(job: Job) -> list[str]:
    """Return the ids of the parents that are done and of all their ancestors.

    The ancestors are needed because an artifact refers to its checkpoint.
    """
    store = Store(directory=Path(job.directory))
    found: dict[str, None] = {}
    ahead = [ground.id for ground in job.grounds if ground.done]
    while ahead:
        id = ahead.pop()
        outcome = store.outcome(id)
        if id not in found and outcome is not None:
            found[id] = None
            ahead += outcome.parents
    return list(found)


def run_cell(text: str, stands_on: Mapping[str, tuple[str, Any]]) -> tuple[str, bytes]:
    """Run a cell on this machine, in a temporary directory, as a task of Ray.

    `text` is the job. `stands_on` has the digest and the Ray object reference of each cell that it
    depends on, by id. Return the digest and the bytes of the packed directory of the cell.
    """
    import ray

    with scratch_directory() as scratch:
        job = replace(Job.from_text(text), directory=str(scratch))
        (scratch / CELLS).mkdir()
        for id, (digest, reference) in stands_on.items():
            unpack(ray.get(reference), digest, scratch / CELLS / id)
        process = CellProcess(job)
        try:
            process.follow(Silent())
        finally:
            process.close()
        data = packed(job.place)
        return digest_bytes(data), data
