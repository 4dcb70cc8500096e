"""Kill commands at random moments, and check that nothing is lost and nothing left over.

Each command is killed (SIGKILL) ten times, spread over the time that a whole run takes, and then
run to its end. After each kill, every file that was in its place is still there, byte for byte,
every result, artifact and cell can be read, and no process lives on. `study run` and `optimize` go
on with the same --out until they are done, and measure nothing twice. After the last run, no
temporary file is left, neither beside the outputs nor in the temporary directory.

    make kills
    make kills KILLS='--count 2 --seed 7 bench export'
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from toolkit.core.artifact import Artifact
from toolkit.results import store
from toolkit.study.store import CELLS, Store

TOOLKIT = Path(sys.executable).with_name("toolkit")
VARIABLE = "TOOLKIT_KILLS"  # in the environment of every process of a run
MOST_SECONDS = 600  # for one run
SECONDS_TO_END = 20  # for the processes of a command that was killed
STUDY = """
title = "A study that is killed"

[[train]]
model = "mlp"
data = "diabetes"
epochs = 1

[[export]]
to = "onnx"

[[bench]]
runtimes = ["onnxruntime", "null"]
batch = [1, 8]
runs = 20
warmup = 3
"""
SETUP = (
    ("train", "mlp", "--data", "diabetes", "--epochs", "1", "--out", "mlp"),
    ("export", "mlp", "--to", "onnx", "--out", "mlp-onnx"),
)


class Fault(Exception):
    """What a kill lost, or left over."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command with `{out}` for its output, and the check of what is there after a kill.

    It is given the same --out after a kill, unless it `needs_new_out` and that exists. One that
    `resumes` is given another when it is done.
    """

    arguments: Sequence[str]
    check: Callable[[Path], None]
    resumes: bool = False
    needs_new_out: bool = False


def _results_are_whole(out: Path) -> None:
    for path in store.paths(out):
        store.load(path)


def _artifact_is_whole(out: Path) -> None:
    if out.exists():
        Artifact.load(out)


def _cells_are_whole(out: Path) -> None:
    cells = [path.name for path in (out / CELLS).glob("*")]
    damages = [Store(directory=out).damage(id) for id in cells if not id.startswith(".")]
    if any(damages):
        raise Fault(f"A cell is damaged: {damages}")


def _rounds_are_whole(out: Path) -> None:
    for place in (out / "rounds").glob("*"):
        _results_are_whole(place)
        if len(store.paths(place)) > 1:
            raise Fault(f"{place} was measured twice.")
    for form in (out / "forms").glob("*"):
        if not form.name.startswith("."):
            Artifact.load(form)
    _artifact_is_whole(out / "bundle" / "model")


COMMANDS: Mapping[str, Command] = {
    "optimize": Command(
        arguments=("optimize", "mlp-onnx", "--exact", "--budget", "2s", "--out", "{out}"),
        check=_rounds_are_whole,
        resumes=True,
    ),
    "study": Command(
        arguments=("study", "run", "killed.toml", "--out", "{out}"),
        check=_cells_are_whole,
        resumes=True,
    ),
    "bench": Command(
        arguments=("bench", "mlp-onnx", "--runtime", "onnxruntime,null", "--runs", "50",
                   "--out", "{out}"),
        check=_results_are_whole,
    ),
    "export": Command(
        arguments=("export", "mlp", "--to", "onnx", "--out", "{out}"),
        check=_artifact_is_whole,
        needs_new_out=True,
    ),
    "calibrate": Command(
        arguments=("calibrate", "mlp-onnx", "--data", "diabetes", "--out", "{out}"),
        check=_artifact_is_whole,
        needs_new_out=True,
    ),
}  # fmt: skip


class Runs:
    """Runs of one command in `place`, which has the inputs, with a temporary directory apart."""

    def __init__(self, command: Command, place: Path, temporary: Path) -> None:
        self._command, self._place, self._temporary = command, place, temporary
        self._mark = secrets.token_hex(8)
        self._number = 0
        self._kept: dict[Path, str] = {}

    @property
    def out(self) -> Path:
        return self._place / f"out-{self._number}"

    def whole(self) -> float:
        """Run it to its end; return how many seconds that took. Raises Fault."""
        began = time.monotonic()
        process = self._start()
        if process.wait(timeout=MOST_SECONDS) != 0:
            raise Fault(f"It ended with {process.returncode}: {self._said()}")
        self._check()
        return time.monotonic() - began

    def kill(self, after_s: float) -> bool:
        """Kill it after `after_s` seconds; return False if it had ended. Raises Fault."""
        process = self._start()
        try:
            code = process.wait(timeout=after_s)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            self._check()
            return True
        if code != 0:
            raise Fault(f"It ended with {code}: {self._said()}")
        self._check()
        return False

    def choose_out(self, *, done: bool) -> None:
        """Choose the --out of the next run, after one that is `done` or was killed."""
        command = self._command
        if (command.resumes and done) or (command.needs_new_out and self.out.exists()):
            self._number += 1

    def hidden(self) -> set[Path]:
        """Return what is in no place of its own: hidden, or in the temporary directory."""
        found = {path for path in self._place.rglob(".*") if path.name != ".lock"}
        return found | set(self._temporary.iterdir())

    def refuse_leftovers(self, usual: set[Path]) -> None:
        """Raise Fault if a temporary file is left, but for the `usual` ones of other packages."""
        if left := self.hidden() - usual:
            raise Fault(f"Left over: {', '.join(map(str, left))}")

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = [one.format(out=self.out.name) for one in self._command.arguments]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [TOOLKIT, *arguments],
                cwd=self._place,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, VARIABLE: self._mark, "TMPDIR": str(self._temporary)},
            )

    @property
    def _log(self) -> Path:
        return self._temporary.with_name("log.txt")

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def _check(self) -> None:
        self._refuse_orphans()
        self._command.check(self.out)
        now = dict(self._contents())
        for path, digest in self._kept.items():
            if now.get(path) != digest:
                raise Fault(f"{path} was {'lost' if path not in now else 'changed'}.")
        self._kept = now

    def _contents(self) -> Iterator[tuple[Path, str]]:
        """What must stay: all files in their places but those that each run writes anew."""
        for path in sorted(self._place.rglob("*")):
            parts = path.relative_to(self._place).parts
            anew = len(parts) == 2 and parts[1] in ("study.json", "report.json", "report.html")
            hidden = any(part.startswith(".") for part in parts)
            if path.is_file() and not (anew or hidden or "bundle" in parts):
                yield path, hashlib.sha256(path.read_bytes()).hexdigest()

    def _refuse_orphans(self) -> None:
        deadline = time.monotonic() + SECONDS_TO_END
        while alive := list(self._alive()):
            if time.monotonic() > deadline:
                raise Fault(f"Processes live on: {alive}")
            time.sleep(0.1)

    def _alive(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            try:
                marked = process.environ().get(VARIABLE) == self._mark
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    yield process
            except psutil.Error:
                continue


def prepare(place: Path) -> None:
    """Make the inputs of all commands in `place`. Raises CalledProcessError."""
    (place / "killed.toml").write_text(STUDY)
    for arguments in SETUP:
        subprocess.run([TOOLKIT, *arguments], cwd=place, check=True, stderr=subprocess.DEVNULL)


def copy_inputs(inputs: Path, place: Path) -> None:
    """Make `place`, with what `prepare` made. An export knows its model by a relative path."""
    shutil.copytree(inputs, place)


def kill_often(
    command: Command, place: Path, temporary: Path, *, count: int, rng: random.Random
) -> list[float]:
    """Kill a command `count` times; return after how many seconds each. Raises Fault."""
    runs = Runs(command, place, temporary)
    length = runs.whole()
    runs.choose_out(done=True)
    usual = runs.hidden()
    moments: list[float] = []
    while len(moments) < count:
        after = length * (len(moments) + rng.random()) / count
        killed = runs.kill(after)
        if killed:
            moments.append(after)
            told = f"kill {len(moments)} of {count} after {after:.1f} s"
            print(told, file=sys.stderr, flush=True)
        elif not command.resumes:
            length = min(length, after)  # it is faster than the first run was
        runs.choose_out(done=not killed)
    runs.whole()
    runs.refuse_leftovers(usual)
    return moments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("commands", nargs="*", help=f"of {', '.join(COMMANDS)}; all by default")
    parser.add_argument("--count", type=int, default=10, help="kills of each command")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    names = given.commands or list(COMMANDS)
    failed = False
    with tempfile.TemporaryDirectory() as directory:
        inputs = Path(directory) / "inputs"
        inputs.mkdir()
        prepare(inputs)
        for name in names:
            place, temporary = Path(directory) / name / "place", Path(directory) / name / "tmp"
            temporary.mkdir(parents=True)
            copy_inputs(inputs, place)
            rng = random.Random(f"{given.seed} {name}")
            try:
                found = kill_often(COMMANDS[name], place, temporary, count=given.count, rng=rng)
            except Fault as fault:
                failed = True
                print(f"{name}: FAULT: {fault}", flush=True)
            else:
                moments = ", ".join(f"{one:.1f}" for one in found)
                print(f"{name}: {len(found)} kills, after {moments} s: nothing lost", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
