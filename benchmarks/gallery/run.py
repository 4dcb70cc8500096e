"""The gallery: models that others wrote, through every step, and wrong variants of each.

    make gallery                                    # all; continues where it stopped
    make gallery GALLERY="--only Bert --only Lstm"
    make gallery GALLERY="--steps onnx,faults --jobs 4"

Each step is a command of `toolkit` in a process of its own, for all members before the next step.
What came of it is stored in .gallery, so that a run can be stopped at any time. At the end it
prints how many right models were refused and how many wrong ones passed, and writes
docs/gallery.md.

A refusal is a limit of the exporter or runtime if that refuses the model by itself as well
(bare.py), and a false refusal otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from bare import apart
from faults import faults, one_reference, refused_by
from members import Member, members
from wheels import unpacked_wheels

from tests import fork_server
from toolkit.cli.options import input_request
from toolkit.core.errors import ToolkitError
from toolkit.sources.inputs import InputRequest, input_source
from toolkit.sources.isolated_backend import open_files
from toolkit.sources.resolve import open_artifact

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STORE = ROOT / ".gallery"
PAGE = ROOT / "docs" / "gallery.md"
USED = ("diffusers", "keras", "torch_geometric.nn", "transformers", "transformers.modeling_utils")
"""What the members import, and the server of processes before them."""
TIMEOUT_S = 900
EQUAL = 1e-6  # of outputs, as a part of the largest value: 17 roundings
SAME = 1e-3  # of the bare exporter's outputs to the module's
ROWS = 16  # to calibrate on
SEEDS = 2  # of wrong variants of each kind
LONG_S = 40.0  # after which no further seed is taken
# Per kind: the export that the other steps take, then those from it or beside it.
TARGETS: Mapping[str, Sequence[str]] = {
    "torch": ("onnx", "openvino", "torch-export", "aotinductor"),
    "keras": ("onnx", "openvino", "litert", "savedmodel"),
    "onnx": ("onnx", "openvino"),
}
STEPS = (
    *("onnx", "faults", "openvino", "torch-export", "litert", "savedmodel", "calibrate", "deploy"),
    *("bench", "optimize", "aotinductor"),
)
COLUMNS = tuple(step for step in STEPS if step != "faults")
BRIEF = ("--max-seconds", "0.5", "--processes", "1", "--scope", "forward", "--out")


@dataclass(frozen=True, kw_only=True)
class Step:
    """What came of a step: `error` is this project's; `limit` what the bare exporter or runtime
    says, if it refuses the model too."""

    ok: bool
    seconds: float
    error: str = ""
    limit: str = ""

    @property
    def is_false_refusal(self) -> bool:
        return not self.ok and not self.limit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", help="a member by name; may be repeated")
    parser.add_argument("--steps", default=",".join(STEPS), help="these, separated by commas")
    parser.add_argument("--fresh", action="store_true", help="discard the stored results")
    parser.add_argument(
        "--again", action="store_true", help="repeat false refusals, and variants if one passed"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--shard", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.steps.split(",")) - set(STEPS):
        parser.error(f"no step {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
    chosen = [m for m in members(unpacked_wheels()) if not options.only or m.name in options.only]
    if missing := set(options.only or ()) - {member.name for member in chosen}:
        parser.error(f"no member {', '.join(sorted(missing))}")
    if options.shard is None:
        if options.fresh:
            for member in chosen:
                shutil.rmtree(STORE / member.name, ignore_errors=True)
        _in_processes(options.jobs)
        return report(chosen, page=not options.only and options.steps == ",".join(STEPS))
    number, count = map(int, options.shard.split("/"))
    fork_server.install(*USED)
    with open_files():
        for name in options.steps.split(","):
            for member in chosen[number::count]:
                Run(member, again=options.again).step(name)
    return 0


def _in_processes(jobs: int) -> None:
    """Run the same command once for each part of the members."""
    command = [sys.executable, *sys.argv]
    running = [subprocess.Popen([*command, "--shard", f"{i}/{jobs}"]) for i in range(jobs)]
    for process in running:
        process.wait()


class Run:
    """The steps of one member, and what is stored of it."""

    def __init__(self, member: Member, *, again: bool) -> None:
        self.member = member
        self.again = again
        self.place = STORE / member.name
        self.place.mkdir(parents=True, exist_ok=True)
        self.artifact = self.place / "onnx"
        self.record = _record(member)

    def step(self, name: str) -> None:
        stored = self.record.get(name)
        if stored is not None and not (self.again and not _passed(stored)):
            return
        exports = set().union(*TARGETS.values())
        if name in exports and name not in TARGETS[self.member.kind]:
            return
        if name != "onnx" and self.needs_artifact(name) and not self.artifact.is_dir():
            return
        if name == "faults":
            with one_reference():
                self.keep(name, self.wrong())
        else:
            self.command(name)

    def needs_artifact(self, name: str) -> bool:
        return name in ("openvino", "faults") or name not in TARGETS[self.member.kind]

    def arguments(self, name: str) -> tuple[str, ...]:
        """The command of a step."""
        graph, out = str(self.artifact), str(self.place / name)
        inputs = self.member.options
        if name == "bench":
            return ("bench", graph, *BRIEF, out, *inputs)
        if name == "calibrate":
            return ("calibrate", graph, "--data", str(self.rows()), "--out", out)
        if name == "deploy":
            return ("deploy", graph, "--to", "triton", "--out", out)
        if name == "optimize":
            return ("optimize", graph, "--exact", "--budget", "3s", "--out", out, *inputs)
        source = graph if name == "openvino" else self.member.source
        made = self.artifact / "source"  # a checkpoint or SavedModel: the code need not run again
        if name in ("torch-export", "aotinductor", "litert") and made.is_dir():
            source = str(made)
        given = inputs if self.member.kind == "onnx" else ()
        return ("export", source, "--to", name, "--out", out, *given)

    def rows(self) -> Path:
        """A file with rows to calibrate on."""
        path = self.place / "rows.npz"
        if not path.exists():
            sets = input_source(open_artifact(self.artifact), self.request()).sets(ROWS)
            stored: dict[str, Any] = dict(sets[0])
            np.savez(path, **stored)
        return path

    def request(self) -> InputRequest:
        """The member's options as the toolkit reads them."""
        given: dict[str, list[str]] = {"--dim": [], "--input": []}
        for option, value in zip(*[iter(self.member.options)] * 2, strict=True):
            given[option].append(value)
        return input_request(
            data=None, data_dir=None, data_option=None, inputs=None, dim=given["--dim"],
            input_=given["--input"],
        )  # fmt: skip

    def command(self, name: str) -> None:
        shutil.rmtree(self.place / name, ignore_errors=True)
        start = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "toolkit", *self.arguments(name)],
                capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=STORE,
            )  # fmt: skip
            error = "" if done.returncode == 0 else _error(done.stderr)
        except subprocess.TimeoutExpired:
            error = f"no end within {TIMEOUT_S} s"
        except ToolkitError as found:  # of the rows to calibrate on
            error = str(found)
        seconds = round(time.monotonic() - start, 1)
        limit = self.limit(name, error) if error else ""
        step = Step(ok=not error, seconds=seconds, error=error, limit=limit)
        self.keep(name, asdict(step))
        told = "ok" if step.ok else f"limit: {limit}" if limit else f"REFUSED: {error}"
        print(f"{self.member.name}, {name}: {told[:200]} ({seconds} s)", flush=True)
        if name != "onnx":  # which the other steps take
            shutil.rmtree(self.place / name, ignore_errors=True)

    def keep(self, name: str, value: object) -> None:
        self.record[name] = value
        path = self.place / "record.json"
        written = path.with_suffix(".tmp")
        written.write_text(json.dumps(self.record, indent=1))
        written.replace(path)

    def limit(self, name: str, error: str) -> str:
        """What the bare exporter or runtime says, if it refuses the model as well."""
        if name == "deploy":
            return error if "Triton" in error else ""
        source = self.member.source
        if self.needs_artifact(name):
            source = str(open_artifact(self.artifact).path)
        command = [sys.executable, str(HERE / "bare.py"), self.member.kind, name, source]
        if name in ("openvino", "bench", "calibrate", "optimize") or self.member.kind == "onnx":
            try:
                command.append(str(self.rows()))
            except ToolkitError:
                return ""
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
            found = json.loads(done.stdout.strip().splitlines()[-1])
        except subprocess.TimeoutExpired:
            return f"the bare exporter did not end within {TIMEOUT_S} s either"
        except (IndexError, ValueError):
            return f"it ends the process: {_error(done.stderr)}" if done.returncode < 0 else ""
        if found["error"]:
            return str(found["error"])
        apart = found["difference"]
        return f"its outputs are off by {apart:.1e}" if apart is not None and apart > SAME else ""

    def wrong(self) -> dict[str, Any]:
        """The right graph, which must pass, and each wrong variant, with what refused it."""
        source = self.artifact / "source" if (self.artifact / "source").is_dir() else self.artifact
        graph = onnx.load(open_artifact(self.artifact).path)
        copied = self.place / "wrong.onnx"
        onnx.save(graph, copied)
        found: dict[str, Any] = {"right": refused_by(source, copied, self.request()), "wrong": []}
        seen: set[str] = set()
        start = time.monotonic()
        for seed in range(SEEDS):
            if time.monotonic() - start > LONG_S:
                break
            for told, model in faults(graph, seed):
                if told in seen:
                    continue
                seen.add(told)
                onnx.save(model, copied)
                refused = refused_by(source, copied, self.request())
                if not refused and self.is_equal(graph, model):
                    continue  # no other model
                found["wrong"].append({"fault": told, "refused_by": refused})
                if not refused:
                    print(f"{self.member.name}: PASSED: {told}", flush=True)
        copied.unlink()
        count, refused = len(found["wrong"]), sum(bool(f["refused_by"]) for f in found["wrong"])
        print(f"{self.member.name}, faults: {refused} of {count} refused"
              f"{'; RIGHT REFUSED: ' + found['right'] if found['right'] else ''} "
              f"({time.monotonic() - start:.0f} s)", flush=True)  # fmt: skip
        return found

    def is_equal(self, right: onnx.ModelProto, wrong: onnx.ModelProto) -> bool:
        """Whether a variant gives the same outputs up to EQUAL, by ONNX Runtime alone."""
        feeds = dict(np.load(self.rows()))
        results = [
            onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
            for model in (right, wrong)
        ]
        return apart(*results) <= EQUAL


def _record(member: Member) -> dict[str, Any]:
    path = STORE / member.name / "record.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _passed(stored: Mapping[str, Any]) -> bool:
    """Whether a step needs no repetition."""
    if "wrong" in stored:
        return not stored["right"] and all(each["refused_by"] for each in stored["wrong"])
    return bool(stored["ok"] or stored["limit"])


def _error(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    told = errors[-1].removeprefix("error: ") if errors else " ".join(lines[-1:])
    return told.replace(f"{STORE}/", "")[:400]


def report(chosen: Sequence[Member], *, page: bool) -> int:
    """Print the totals, and write the table to the page if asked for."""
    rows, refusals, passed = [], [], []
    limits: dict[str, list[str]] = {}
    totals: Counter[str] = Counter()
    for member in chosen:
        record = _record(member)
        cells = []
        for column in COLUMNS:
            if column not in record:
                cells.append("")
                continue
            step = Step(**record[column])
            totals["steps"] += 1
            cells.append("✓" if step.ok else "limit" if step.limit else "REFUSED")
            if step.is_false_refusal:
                refusals.append(f"{member.name}, {column}: {step.error}")
            elif not step.ok:
                limits.setdefault(_one_line(step.limit), []).append(f"{member.name} ({column})")
        found = record.get("faults", {"right": "", "wrong": []})
        if found["right"]:
            refusals.append(f"{member.name}, parity: {found['right']}")
        wrong = [each for each in found["wrong"] if not each["refused_by"]]
        passed += [f"{member.name}: {each['fault']}" for each in wrong]
        totals["faults"] += (count := len(found["wrong"]))
        for each in found["wrong"]:
            totals[each["refused_by"].partition(":")[0]] += 1
        rows.append(f"| {member.name} | {' | '.join(cells)} | {count - len(wrong)} of {count} |")
    sums = (
        f"{len(chosen)} models, {totals['steps']} steps; false refusals: {len(refusals)}; wrong "
        f"models passed: {len(passed)} of {totals['faults']} (refused by weights "
        f"{totals['weights']}, by outputs {totals['outputs']}, not run "
        f"{totals['faults'] - totals['weights'] - totals['outputs'] - len(passed)})"
    )
    if page:
        PAGE.write_text(
            "\n".join(
                (
                    *INTRODUCTION, sums + ".", "",
                    f"| model | {' | '.join(COLUMNS)} | wrong variants refused |",
                    f"| --- |{' --- |' * (len(COLUMNS) + 1)}", *rows, "",
                    "## Limits", "", "In the words of the exporter or runtime.", "",
                    *(f"- {', '.join(names)}: `{told}`" for told, names in limits.items()),
                )
            )
            + "\n"
        )  # fmt: skip
    for told in refusals:
        print(f"false refusal: {told}")
    for told in passed:
        print(f"wrong model passed: {told}")
    print(sums)
    return 1 if refusals or passed else 0


INTRODUCTION = (
    "# Gallery",
    "",
    "Architectures that others wrote, with random weights, and ONNX files from packages on PyPI,",
    "through every step of the toolkit. `make gallery` writes this page. ✓: done, and the proof",
    "passed. *limit*: the exporter or the runtime refuses the model by itself as well; its words",
    "are below. Empty: not a target of that kind of model, or without an ONNX form.",
    "",
    "Each ONNX form is also changed in one place, in several ways: one bit of a weight, two weights",
    "swapped, a constant, an attribute, an operator, a dropped addition or transposition. Every such",
    "variant must be refused by `parity weights` or `parity outputs`.",
    "",
)


def _one_line(text: str) -> str:
    """Without line breaks, colours of the terminal and temporary directories."""
    text = re.sub(r"\x1b?\[[\d;]+m|/tmp/\w+/", "", text.replace("`", "'"))
    return re.sub(r"\s+", " ", text)[:240]


if __name__ == "__main__":
    sys.exit(main())
