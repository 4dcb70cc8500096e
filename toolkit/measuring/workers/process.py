"""Main loop of a worker process: commands over standard input and output until the parent ends.

Each request is a message with a `command`. Each reply has `ok`, which is False if the reply
describes an error. Output that libraries print goes to standard error.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO, Protocol

import numpy as np

from toolkit.core.documents import Json
from toolkit.core.errors import ToolkitError, WorkerError, first_words, to_wire
from toolkit.measuring.workers import wire
from toolkit.measuring.workers.prctl import go_on_without_parent

Reply = tuple[Json, Mapping[str, np.ndarray]]


class Worker(Protocol):
    """Interface of an object that answers commands."""

    def handle(self, message: Json, arrays: Mapping[str, np.ndarray]) -> Reply: ...


def serve(source: BinaryIO, sink: BinaryIO, worker: Worker) -> None:
    """Answer requests until the other side closes the pipe."""
    while (request := wire.receive(source)) is not None:
        message, arrays = request
        try:
            reply, results = worker.handle(message, arrays)
            frame = wire.encode({"ok": True, **reply}, results)
        except ToolkitError as error:
            frame = wire.encode({"ok": False, **to_wire(error)})
        except Exception as error:  # an error of a runtime fails its row, not the process
            frame = wire.encode({"ok": False, **to_wire(_foreign(error, message))})
        wire.send(sink, frame)


def _foreign(error: Exception, message: Mapping[str, Any]) -> WorkerError:
    return WorkerError(
        f"{message['command']!r} failed with {first_words(error)}",
        hint="The runtime itself raised this; look it up in the runtime's own documentation.",
    )


def end_with_parent(lifeline: int) -> None:
    """Kill this process and its child processes when the parent ends, whatever is running.

    A thread blocks on a pipe that the parent keeps open, which takes no processor time. An idle
    worker is suspended (see WorkerProcess) and resumes in order to end itself.
    """
    go_on_without_parent()

    def wait() -> None:
        os.read(lifeline, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def run(worker: Worker) -> None:
    """Serve commands of the parent; redirect all other standard output to standard error."""
    end_with_parent(int(sys.argv[1]))
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, sink, worker)
    sys.stderr.flush()
    os._exit(0)  # skips exit handlers of the frameworks, which can hang or crash
