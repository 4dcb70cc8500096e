"""ONNX's own backend tests through `toolkit.load` and through the passes, beside the bare runtimes.

    PYTHONPATH=. python benchmarks/backend_tests.py                  # all
    PYTHONPATH=. python benchmarks/backend_tests.py --only test_cast --no-passes

A case that the bare runtime computes right must come out right, or, if it has sequences or
optionals, be refused with a typed error. What a pass makes of a case must give the right values, or
the pass must refuse it. The exit code is 1 if not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console
from rich.table import Table

from tests import fork_server
from tests.backend_cases import (
    FAILED,
    PASSES,
    REFUSED,
    RIGHT,
    RUNTIMES,
    Case,
    bare,
    cases,
    of_pass,
    ours,
)
from toolkit.sources.isolated_backend import open_files

TIMEOUT_S = 120

Found = dict[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--no-passes", action="store_true", help="leave the passes out")
    options = parser.parse_args()
    chosen = [case for case in cases() if options.only in case.name]
    results = dict(_all(chosen, with_passes=not options.no_passes))
    return report(chosen, results, with_passes=not options.no_passes)


def _of(case: Case, path: Path, with_passes: bool) -> Iterator[tuple[str, str]]:
    """What comes of a case, each step by name."""
    onnx.save(case.model, path)
    for runtime in RUNTIMES:
        yield f"bare {runtime}", bare(case, path, runtime)
        yield f"ours {runtime}", ours(case, path, runtime)
    for name in PASSES if with_passes else ():
        yield f"pass {name}", of_pass(case, path, name)


@dataclass
class Worker:
    """A process that works through cases, and is replaced when one ends it."""

    queue: deque[Case]
    with_passes: bool
    at: Case | None = None
    found: Found = field(default_factory=dict)
    done: list[tuple[str, Found]] = field(default_factory=list)

    def start(self) -> None:
        self.receiver, sender = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_work, args=(self.queue, self.with_passes, sender))
        self.process.start()
        sender.close()

    def receive(self) -> None:
        """Take what the process sent, or find that it ended."""
        try:
            step, told = self.receiver.recv()
        except EOFError:
            self.process.join()
            if self.at is None:
                return
            self.found[_missing(self.found, self.with_passes)] = f"{FAILED}: the process ended"
            self.finish()
            if self.queue:
                self.start()
            return
        if step == "begin":
            self.at, self.found = self.queue.popleft(), {}
        elif step == "end":
            self.finish()
        else:
            self.found[step] = told

    def finish(self) -> None:
        assert self.at is not None
        self.done.append((self.at.name, self.found))
        self.at = None


def _missing(found: Found, with_passes: bool) -> str:
    steps = [f"{who} {runtime}" for runtime in RUNTIMES for who in ("bare", "ours")]
    steps += [f"pass {name}" for name in PASSES] if with_passes else []
    return next(step for step in steps if step not in found)


def _work(queue: Sequence[Case], with_passes: bool, sender: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the runtimes' warnings
    fork_server.install()
    with tempfile.TemporaryDirectory() as place, open_files():
        for case in queue:
            sender.send(("begin", case.name))
            for found in _of(case, Path(place) / "model.onnx", with_passes):
                sender.send(found)
            sender.send(("end", ""))
    sender.close()


def _all(chosen: Sequence[Case], *, with_passes: bool) -> Iterator[tuple[str, Found]]:
    jobs = os.cpu_count() or 1
    workers = [Worker(deque(chosen[i::jobs]), with_passes) for i in range(jobs)]
    for worker in workers:
        worker.start()
    count = 0
    while running := [w for w in workers if w.queue or w.at or w.process.is_alive()]:
        ready = connection.wait([worker.receiver for worker in running], timeout=TIMEOUT_S)
        if not ready:
            for worker in running:
                worker.process.kill()
        for worker in running:
            if worker.receiver in ready or not ready:
                worker.receive()
            for found in worker.done:
                count += 1
                if count % 100 == 0:
                    print(f"{count} of {len(chosen)}", flush=True)
                yield found
            worker.done.clear()


def report(chosen: Sequence[Case], results: dict[str, Found], *, with_passes: bool) -> int:
    """Print the table and the cases that are not as they must be; return the exit code."""
    console = Console(width=160)
    table = Table(title=f"{len(chosen)} backend tests of onnx {onnx.__version__}")
    for column in ("runtime", "bare: right", "ours: right", "refused (types)", "right only bare"):
        table.add_column(column)
    bad: list[str] = []
    for runtime in RUNTIMES:
        counts: Counter[str] = Counter()
        for case in chosen:
            found = results[case.name]
            theirs = found.get(f"bare {runtime}", "") == RIGHT
            told = found.get(f"ours {runtime}", f"{FAILED}: not reached")
            counts["bare"] += theirs
            counts["ours"] += told == RIGHT
            if theirs and told != RIGHT:
                if case.other_types and told.startswith(REFUSED):
                    counts["types"] += 1
                else:
                    counts["bad"] += 1
                    bad.append(f"{runtime}, {case.name}: {told}")
        table.add_row(runtime, *(str(counts[key]) for key in ("bare", "ours", "types", "bad")))
    console.print(table)
    if with_passes:
        table = Table(title="What the passes make of them")
        for column in ("pass", "right", "refused", "wrong"):
            table.add_column(column)
        for name in PASSES:
            counts = Counter()
            for case in chosen:
                told = results[case.name].get(f"pass {name}", f"{FAILED}: not reached")
                kind = told.partition(":")[0]
                counts[kind if kind in (RIGHT, REFUSED) else "bad"] += 1
                if kind not in (RIGHT, REFUSED):
                    bad.append(f"{name}, {case.name}: {told}")
            table.add_row(name, *(str(counts[key]) for key in (RIGHT, REFUSED, "bad")))
        console.print(table)
    for told in bad:
        console.print(told[:300], markup=False, highlight=False)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
