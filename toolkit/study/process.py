"""Parent side of the process of a cell: start, progress, outcome and end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import final

from toolkit.core.errors import ToolkitError
from toolkit.core.progress import Progress
from toolkit.sources.interpreters import interpreter
from toolkit.study.job import Job
from toolkit.study.outcomes import finish, outcome_of
from toolkit.study.store import LOG, Outcome, State, Store

LAST_LINES = 3


@final
class CellProcess:
    """Process that runs one cell, and is killed when this process ends for any reason.

    `held` are file descriptors that it inherits, such as the lock of the study's directory. If the
    Python interpreter of the cell is missing, `follow` gives a failed outcome.
    """

    def __init__(self, job: Job, held: Sequence[int] = ()) -> None:
        self._job = job
        self._began = datetime.now(UTC)
        shutil.rmtree(job.partial, ignore_errors=True)
        job.partial.mkdir(parents=True)
        self._log = job.partial / LOG
        lifeline, self._hold = os.pipe()
        try:
            with self._log.open("wb") as log:
                self._process: subprocess.Popen[str] | None = subprocess.Popen(
                    [self._python(), "-P", "-m", "toolkit.study.worker", str(lifeline)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    pass_fds=[lifeline, *held],
                    start_new_session=True,
                )
        except ToolkitError as error:
            self._process = None
            self._reason: str | None = f"{error.problem} {error.hint}"
        finally:
            os.close(lifeline)

    def _python(self) -> str:
        framework = str(self._job.values.get("trainer", "")).partition(":")[0]
        return interpreter(framework, {}) if self._job.step == "train" else sys.executable

    def follow(self, progress: Progress) -> Outcome:
        """Report the progress of the cell until it ends, and return its outcome.

        The directory of the cell is then in its final place. If the process left no outcome, store
        a failed one.
        """
        code = None
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
                stdin.write(self._job.to_text())  # if it has ended already, its log has the reason
            for line in self._process.stdout:
                _tell(line, progress)
            code = self._process.wait()
        found = Store(directory=Path(self._job.directory)).outcome(self._job.id)
        return found or self._died(code)

    def _died(self, code: int | None) -> Outcome:
        """Store and return a failed outcome for a process that left none or did not start."""
        reason = self._reason if code is None else _told(code, self._log)
        outcome = outcome_of(self._job, State.FAILED, self._began, reason=reason)
        finish(self._job, outcome)
        return outcome

    def close(self) -> None:
        """End the process, and remove the output of an unfinished cell. Idempotent."""
        if self._hold >= 0:
            os.close(self._hold)
            self._hold = -1
        if self._process is not None:
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(BrokenPipeError):  # it did not read the job
                    if stream is not None:
                        stream.close()
        shutil.rmtree(self._job.partial, ignore_errors=True)


def _tell(line: str, progress: Progress) -> None:
    message = json.loads(line)
    if "update" in message:
        task, done, total, detail = message["update"]
        progress.update("this cell", done, total, f"{task}{detail and ': '}{detail}")
    else:
        progress.note(message["note"])


def _told(code: int, log: Path) -> str:
    """Return how the process ended, with the last lines of its log."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    last = f": {' '.join(lines[-LAST_LINES:])}" if lines else ", and said nothing"
    return f"The process of the cell {how}{last}"
