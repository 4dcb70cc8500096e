"""Process of one cell: `python -m toolkit.study.worker LIFELINE`, with the job on standard input.

LIFELINE is the descriptor of a pipe. When the parent closes the other end, this process and its
child processes are killed. The process writes the directory of the cell, `cell.json` last, and
moves it to its final place. Each progress message is a line of JSON on standard output. Output of
libraries goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from datetime import UTC, datetime
from typing import TextIO, final

from toolkit.core.documents import plain
from toolkit.core.errors import ToolkitError
from toolkit.core.progress import Progress
from toolkit.measuring.workers.process import end_with_parent
from toolkit.study.job import Job
from toolkit.study.outcomes import finish, outcome_of
from toolkit.study.store import State
from toolkit.study.work import work


@final
class Told(Progress):
    """Progress that writes each message to a stream as a line of JSON."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        self._say({"update": [task, done, total, detail]})

    def note(self, text: str) -> None:
        self._say({"note": text})

    def _say(self, message: dict[str, object]) -> None:
        self._stream.write(f"{json.dumps(plain(message))}\n")
        self._stream.flush()


def run(job: Job, progress: Progress) -> None:
    """Run a job, and store its outcome. An exception is stored as a failed outcome."""
    started = datetime.now(UTC)
    try:
        made = work(job, progress)
    except ToolkitError as error:
        outcome = outcome_of(job, State.FAILED, started, reason=f"{error.problem} {error.hint}")
    except Exception as error:  # an error in a library fails this cell, not the study
        traceback.print_exc()
        outcome = outcome_of(job, State.FAILED, started, reason=f"{type(error).__name__}: {error}")
    else:
        outcome = outcome_of(
            job, State.DONE, started, output=made.output, warnings=tuple(made.warnings)
        )
    finish(job, outcome)


def main() -> None:
    end_with_parent(int(sys.argv[1]))
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    run(Job.from_text(sys.stdin.read()), Told(stream))
    stream.flush()
    sys.stderr.flush()
    os._exit(0)  # skips exit handlers of the frameworks, which can hang or crash


if __name__ == "__main__":
    main()
