"""The process of a worker: commands over standard input and output until the parent is gone.

Each request is a message with a `command`; each reply has `ok`, or describes the error. What
libraries print goes to standard error.
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
from toolkit.measuring import wire
from toolkit.measuring.prctl import go_on_without_parent

Reply = tuple[Json, Mapping[str, np.ndarray]]


class Worker(Protocol):
    """What answers commands."""

    def handle(self, message: Json, arrays: Mapping[str, np.ndarray]) -> Reply: ...


def serve(source: BinaryIO, sink: BinaryIO, worker: Worker) -> None:
    """Answers requests until the other side is gone."""
    while (request := wire.receive(source)) is not None:
        message, arrays = request
        try:
            reply, results = worker.handle(message, arrays)
            frame = wire.encode({"ok": True, **reply}, results)
        except ToolkitError as error:
            frame = wire.encode({"ok": False, **to_wire(error)})
        except Exception as error:  # whatever a vendor raises costs this row, not the process
            frame = wire.encode({"ok": False, **to_wire(_foreign(error, message))})
        wire.send(sink, frame)


def _foreign(error: Exception, message: Mapping[str, Any]) -> WorkerError:
    return WorkerError(
        f"{message['command']!r} failed with {first_words(error)}",
        hint="The runtime itself raised this; look it up in the runtime's own documentation.",
    )


def end_with_parent(lifeline: int) -> None:
    """Ends this process and what it started when the parent is gone, whatever runs meanwhile.

    Blocks on a pipe that the parent holds open, so it takes no processor time. A worker at rest is
    stopped (see WorkerProcess), and goes on to end itself.
    """
    go_on_without_parent()

    def wait() -> None:
        os.read(lifeline, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def run(worker: Worker) -> None:
    """Keeps the pipe to the parent for itself, and gives everybody else standard error."""
    end_with_parent(int(sys.argv[1]))
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, sink, worker)
    sys.stderr.flush()
    os._exit(0)  # the frameworks' own exit handlers can hang or crash
