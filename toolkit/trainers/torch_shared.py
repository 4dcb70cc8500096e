"""Training session that shares each batch among several processes, via torchrun."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, final

import numpy as np

from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.temporary import scratch_directory
from toolkit.trainers.base import Epoch, EpochRun, Job, TrainingSession
from toolkit.trainers.torch_rank import SOCKET, write_job

LAST_LINES = 3
MODULE = "toolkit.trainers.torch_rank"


@final
class SharedSession(TrainingSession):
    """Client of a training in several processes of this machine.

    torch.distributed.run (torchrun) starts the processes; they end when this session is closed or
    its process ends. Rank 0 answers all calls, since all ranks have the same weights and optimizer
    state. Raises UsageError for a user's module or a batch smaller than the number of processes.
    All methods except `close` raise ToolkitError if a process has ended.
    """

    def __init__(self, job: Job) -> None:
        count = job.settings.processes
        if job.module is not None:
            raise UsageError(
                f"Got {count} processes for a user model, which trains in one.",
                hint="Leave --nproc out, or train a family of `toolkit models`.",
            )
        if job.recipe.batch < count:
            raise UsageError(
                f"Got {count} processes for batches of {job.recipe.batch}.",
                hint="Give a larger --batch-size, or a smaller --nproc.",
            )
        self._place = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Connection | None = None
        try:
            directory = self._place.enter_context(scratch_directory())
            self._log = directory / "log.txt"
            write_job(job, directory)
            with socket.socket(socket.AF_UNIX) as waiting:
                waiting.bind(str(directory / SOCKET))
                waiting.listen(1)
                waiting.settimeout(0.2)
                self._process = self._started(directory, count, job.settings.threads)
                self._channel = self._answered(waiting)
        except BaseException:
            self.close()
            raise

    def _started(self, directory: Path, count: int, threads: int) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            "--nproc-per-node", str(count), "-m", MODULE, str(directory),
        ]  # fmt: skip
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )

    def _answered(self, waiting: socket.socket) -> Connection:
        """Wait for rank 0 to connect. Raises ToolkitError if torchrun ends before."""
        assert self._process is not None
        while True:
            try:
                found, _ = waiting.accept()
            except TimeoutError:
                if self._process.poll() is not None:
                    raise self._ended() from None
                continue
            found.settimeout(None)
            return Connection(found.detach())

    def _ask(self, name: str, *arguments: Any) -> Any:
        assert self._channel is not None, "closed"
        try:
            self._channel.send((name, arguments))
            return self._channel.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error

    def _ended(self) -> ToolkitError:
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines()]
        told = [line for line in lines if "Error" in line] or lines
        return ToolkitError(
            f"A process of the training ended: {' '.join(told[-LAST_LINES:])}",
            hint="Train in one process, without --nproc, to see whether that goes well.",
        )

    def run_epoch(self, epoch: Epoch) -> EpochRun:
        found: EpochRun = self._ask("run_epoch", epoch)
        return found

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._ask("predict", inputs)
        return found

    def weights(self) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = self._ask("weights")
        return found

    def state(self) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = self._ask("state")
        return found

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._ask("restore", dict(state))

    def provenance(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("provenance")
        return found

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()  # rank 0 sees the end of the stream, and all ranks exit
            self._channel = None
        if self._process is not None:
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None
        self._place.close()
