"""Executor that runs cells on this machine."""

from __future__ import annotations

from typing import final

from toolkit.core.errors import ToolkitError
from toolkit.core.interrupts import FirstSignalOnly
from toolkit.core.progress import Progress
from toolkit.study.executor import Executor
from toolkit.study.job import Job
from toolkit.study.process import CellProcess
from toolkit.study.store import Outcome


@final
class LocalExecutor(Executor):
    """Executor that runs one cell at a time on this machine.

    Two cells at a time would disturb each other's measurements.

    `lock` is the descriptor of the lock of the study's directory. Cell processes inherit it: if the
    study is killed, it cannot be started again before the process of its last cell has ended.
    """

    def __init__(self, progress: Progress, lock: int) -> None:
        self._progress, self._lock = progress, lock
        self._running: tuple[Job, CellProcess] | None = None

    def free(self) -> bool:
        return self._running is None

    def able(self, job: Job) -> bool:
        return self.free()

    def start(self, job: Job) -> None:
        # Defer a signal until `close` can end the process.
        with FirstSignalOnly() as signals, signals.calm:
            self._running = job, CellProcess(job, [self._lock])

    def wait(self) -> tuple[Job, Outcome | None]:
        if self._running is None:
            raise ToolkitError(
                "No cell runs, so none can end.",
                hint="This is a bug: please report it with the output of --debug.",
            )
        job, process = self._running
        outcome = process.follow(self._progress)
        process.close()
        self._running = None
        return job, outcome

    def close(self) -> None:
        if self._running is not None:
            self._running[1].close()
            self._running = None
