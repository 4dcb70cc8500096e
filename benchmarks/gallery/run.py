"""The gallery: models that others wrote, through every step, and wrong variants of each.

    PYTHONPATH=. python benchmarks/gallery/run.py                # all; goes on where it stopped
    PYTHONPATH=. python benchmarks/gallery/run.py --only Bert --only Lstm

It needs an environment with this project, transformers, diffusers and torch_geometric.

Each step is a command of `toolkit` in a process of its own. What came of it is stored in
results/gallery, so that a run can be stopped at any time. At the end it prints how many right
models were refused and how many wrong ones passed, and writes docs/gallery.md.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
from faults import faults
from members import WHEELS, Member, members

import toolkit
from tests import fork_server
from toolkit.core.errors import ToolkitError
from toolkit.steps.files import open_files

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STORE = ROOT / "results" / "gallery"
PAGE = ROOT / "docs" / "gallery.md"
TOOLKIT = "from toolkit.cli.main import main; main()"
TIMEOUT_S = 600
SAME = 1e-3  # of the bare exporter's outputs to the module's
# Per kind: the export that the other steps take, then those from it or beside it.
TARGETS: Mapping[str, Sequence[str]] = {
    "torch": ("onnx", "openvino", "torch-export"),
    "keras": ("onnx", "openvino", "litert", "savedmodel"),
    "onnx": ("openvino",),
}
BRIEF = ("--max-seconds", "0.5", "--processes", "1", "--scope", "forward", "--out")


@dataclass(frozen=True, kw_only=True)
class Step:
    """What came of a step: `told` is the error; `limit` what the bare exporter or runtime says, if
    it refuses the model too."""

    ok: bool
    seconds: float
    told: str = ""
    limit: str = ""

    @property
    def is_false_refusal(self) -> bool:
        return not self.ok and not self.limit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", help="a member by name; may be repeated")
    parser.add_argument("--fresh", action="store_true", help="do not go on with stored results")
    parser.add_argument("--no-faults", action="store_true", help="leave the wrong variants out")
    options = parser.parse_args()
    fork_server.install()
    fork_server.enabled = True
    STORE.mkdir(parents=True, exist_ok=True)
    chosen = [m for m in members(_wheels()) if not options.only or m.name in options.only]
    with open_files():
        for number, member in enumerate(chosen, 1):
            path = STORE / f"{member.name}.json"
            if options.fresh:
                path.unlink(missing_ok=True)
            record = json.loads(path.read_text()) if path.exists() else {}
            print(f"{number}/{len(chosen)} {member.name}", flush=True)
            Run(member, record, path, with_faults=not options.no_faults).all()
    return report(chosen)


class Run:
    """The steps of one member."""

    def __init__(self, member: Member, record: dict, path: Path, *, with_faults: bool) -> None:
        self.member = member
        self.record = record
        self.path = path
        self.with_faults = with_faults

    def all(self) -> None:
        first, *others = TARGETS[self.member.kind]
        steps = [first, *others, "bench", "deploy"]
        if all(step in self.record for step in steps) and "faults" in self.record:
            return
        with tempfile.TemporaryDirectory() as place:
            directory = Path(place)
            made = directory / first
            self.step(first, self.export(self.member.source, first, made))
            graph = Path(self.member.source) if self.member.kind == "onnx" else made
            for target in others:
                source = str(graph) if target == "openvino" else self.member.source
                self.step(target, self.export(source, target, directory / target))
            options = self.member.options if self.member.kind == "onnx" else ()
            results = str(directory / "results")
            self.step("bench", ("bench", str(graph), *BRIEF, results, *options))
            self.step("deploy", ("deploy", str(graph), "--to", "triton", "--out",
                                 str(directory / "deployed")))  # fmt: skip
            if self.with_faults and "faults" not in self.record:
                self.keep("faults", self.wrong(graph, directory))

    def export(self, source: str, target: str, out: Path) -> tuple[str, ...]:
        options = self.member.options if self.member.kind == "onnx" else ()
        return ("export", source, "--to", target, "--out", str(out), *options)

    def step(self, name: str, command: Sequence[str]) -> None:
        if name in self.record and self.record[name]["ok"] and name not in TARGETS["torch"][:1]:
            return
        start = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", TOOLKIT, *command], capture_output=True, text=True,
                timeout=TIMEOUT_S, check=False, cwd=HERE,
            )  # fmt: skip
            told = "" if done.returncode == 0 else _error(done.stderr)
        except subprocess.TimeoutExpired:
            told = f"no end within {TIMEOUT_S} s"
        seconds = round(time.monotonic() - start, 1)
        limit = self.limit(name, told) if told else ""
        step = Step(ok=not told, seconds=seconds, told=told, limit=limit)
        self.keep(name, asdict(step))
        print(f"    {name}: {'ok' if step.ok else step.told[:160]} ({seconds} s)", flush=True)

    def keep(self, name: str, value: object) -> None:
        self.record[name] = value
        self.path.write_text(json.dumps(self.record, indent=1))

    def limit(self, name: str, told: str) -> str:
        """What the bare exporter says that refuses the model as well."""
        if self.member.kind == "torch" and name == "onnx":
            done = subprocess.run(
                [sys.executable, str(HERE / "bare.py"), self.member.source],
                capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
            try:
                found = json.loads(done.stdout.strip().splitlines()[-1])
            except (IndexError, ValueError):
                return _error(done.stderr) or "the bare exporter ended without an answer"
            if not found["exported"]:
                return str(found["error"])
            apart = found["difference"]
            return f"its outputs are off by {apart:.1e}" if apart > SAME else ""
        if not self.record.get(TARGETS[self.member.kind][0], {"ok": True})["ok"]:
            return "there is no ONNX form"
        return told if re.search(r"could not (convert|open|export)", told) else ""

    def wrong(self, graph: Path, directory: Path) -> list[dict]:
        """Each wrong variant, and what refused it."""
        source = graph / "source" if (graph / "source").is_dir() else graph
        path = graph / "model.onnx" if graph.is_dir() else graph
        if not path.is_file():
            return []
        found = []
        for told, model in faults(onnx.load(path)):
            wrong = directory / "wrong.onnx"
            onnx.save(model, wrong)
            found.append({"fault": told, "refused_by": _refused_by(source, wrong)})
            print(f"    {told}: {found[-1]['refused_by'] or 'PASSED'}", flush=True)
        return found


def _refused_by(source: Path, wrong: Path) -> str:
    """The command that refuses a wrong variant; empty if none does."""
    try:
        if not toolkit.parity_weights(source, wrong).weights.passed:
            return "weights"
        outputs = toolkit.parity_outputs(source, wrong, runtime="onnxruntime").outputs
        return "" if outputs.passed else "outputs"
    except ToolkitError as error:
        return f"{type(error).__name__}"


def _error(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors[-1].removeprefix("error: ") if errors else " ".join(lines[-1:]))[:400]


def _wheels() -> Path:
    """The folder with what the wheels hold, downloaded once."""
    place = STORE / "wheels"
    for requirement in {each.requirement for each in WHEELS}:
        done = place / f".{requirement}"
        if done.exists():
            continue
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest",
                 scratch, requirement],
                check=True,
            )  # fmt: skip
            for wheel in Path(scratch).glob("*.whl"):
                subprocess.run(
                    [sys.executable, "-m", "zipfile", "--extract", str(wheel), str(place)],
                    check=True,
                )
        done.touch()
    return place


def report(chosen: Sequence[Member]) -> int:
    """Write the table, and print the totals."""
    columns = ["onnx", "openvino", "torch-export", "litert", "savedmodel", "bench", "deploy"]
    lines = ["# Gallery", "", "Written by `benchmarks/gallery/run.py`.", ""]
    lines += [f"| model | {' | '.join(columns)} | wrong variants refused |"]
    lines += [f"| --- |{' --- |' * (len(columns) + 1)}"]
    refusals, limits, passed, total = [], [], [], 0
    for member in chosen:
        path = STORE / f"{member.name}.json"
        record = json.loads(path.read_text()) if path.exists() else {}
        cells = []
        for column in columns:
            if column not in record:
                cells.append("")
                continue
            step = Step(**record[column])
            cells.append("✓" if step.ok else "limit" if step.limit else "REFUSED")
            if step.is_false_refusal:
                refusals.append(f"{member.name}, {column}: {step.told}")
            elif not step.ok:
                limits.append(f"- {member.name}, {column}: {step.limit.replace('|', '/')}")
        found = record.get("faults", [])
        refused = [one for one in found if one["refused_by"]]
        passed += [f"{member.name}: {one['fault']}" for one in found if not one["refused_by"]]
        total += len(found)
        lines.append(f"| {member.name} | {' | '.join(cells)} | {len(refused)} of {len(found)} |")
    lines += ["", "Limits of the exporter or the runtime, in its own words:", "", *limits]
    PAGE.write_text("\n".join(lines) + "\n")
    for told in refusals:
        print(f"false refusal: {told}")
    for told in passed:
        print(f"wrong model passed: {told}")
    print(f"{len(chosen)} models; false refusals: {len(refusals)}; wrong models passed: "
          f"{len(passed)} of {total}")  # fmt: skip
    return 1 if refusals or passed else 0


if __name__ == "__main__":
    sys.exit(main())
