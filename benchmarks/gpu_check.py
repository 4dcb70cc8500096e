"""Everything that wants a GPU, in one command, and one report of it: `make gpu-check`.

Makes an environment for each set of packages that can lie together, asks each what can run, runs
the tests that need a GPU, and repeats the study of LeNet on PyTorch, TensorRT and Tripy: batch
1000, warm-up 5, 100 runs, on the GPU alone and from host to host. A step that fails is reported,
and the others go on. Stands on the standard library, since it runs before anything is installed.

`--here` makes no environment and downloads nothing: what this interpreter has is checked, such as
in a container, with the runtimes that `toolkit doctor` finds able.

`--rehearse PYTHON` goes through the same steps on a CPU as far as they go, with an environment that
is there, a batch or two and few runs: no figure of it is of a GPU, and the report says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = "digits"
NVIDIA = ("--extra-index-url", "https://pypi.nvidia.com")
TRIPY = ("--find-links", "https://nvidia.github.io/TensorRT-Incubator/packages.html")
# What the study that is repeated reports, ms a batch of 1000.
REFERENCE = {
    "forward": {"PyTorch": 0.814, "TensorRT": 0.652, "Tripy": 0.548},
    "end_to_end": {"PyTorch": 1.702, "TensorRT": 1.620, "Tripy": 1.476},
}


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Packages that can lie together, the runtimes that they must make available, the targets that
    are exported with them, the loops that train there."""

    name: str
    extras: str
    runtimes: Sequence[str]
    targets: Sequence[str] = ()
    trainers: Sequence[str] = ()
    options: Sequence[str] = ()
    also: Sequence[str] = ()


TRAINERS = (
    "torch:eager",
    "torch:compile",
    "torch:compile:reduce-overhead",
    "torch:fused",
    "jax:jit",
    "jax:scan",
)
ENVIRONMENTS = (
    Environment(
        name="tensorrt-11",
        extras="gpu,data,dev",
        options=NVIDIA,
        also=("tensorrt>=11,<12",),
        runtimes=("torch-cuda", "torch-compile-cuda", "onnxruntime-cuda", "tensorrt"),
        targets=("tensorrt",),
        trainers=TRAINERS[:-2],
    ),
    Environment(
        name="tensorrt-10",
        extras="gpu,data,dev",
        options=NVIDIA,
        also=("tensorrt>=10.13,<11",),
        runtimes=("torch-cuda", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt"),
        targets=("tensorrt",),
    ),
    Environment(
        name="tensorrt-rtx",
        extras="rtx,rtx-plugin,data,dev",
        options=NVIDIA,
        runtimes=("torch-cuda", "tensorrt-rtx", "onnxruntime-nv-tensorrt-rtx"),
        targets=("tensorrt-rtx",),
    ),
    Environment(
        name="tripy",
        extras="tripy,data,dev",
        options=TRIPY,
        runtimes=("torch-cuda", "tripy"),
        targets=("tripy",),
    ),
)
HERE = Environment(name="here", extras="", runtimes=(), trainers=TRAINERS)
REHEARSAL = Environment(
    name="rehearsal",
    extras="",
    runtimes=("torch", "onnxruntime"),
    targets=("tensorrt-rtx",),
    trainers=("torch:eager", "torch:fused"),
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command, and what came of it."""

    what: str
    command: Sequence[str]
    code: int
    log: Path
    output: str

    @property
    def ok(self) -> bool:
        return self.code == 0


@dataclass(kw_only=True)
class Check:
    """One run, and all that it wrote so far."""

    out: Path
    python: str | None
    rehearsal: bool
    data: str
    epochs: int
    batch: int
    warmup: int
    runs: int
    processes: int
    steps: list[Step] = field(default_factory=list)

    def run(
        self,
        what: str,
        command: Sequence[str | os.PathLike[str]],
        variables: Mapping[str, str] | None = None,
    ) -> Step:
        """Runs a command in the folder of the report, its standard error into a log."""
        words = [os.fspath(word) for word in command]
        log = self.out / "logs" / f"{len(self.steps):02d}-{what.replace(' ', '-')}.log"
        say(f"{what}: {' '.join(words)}")
        with log.open("w") as errors:
            try:
                done = subprocess.run(
                    words,
                    cwd=self.out,
                    env={**os.environ, **(variables or {})},
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    check=False,
                )
                code, output = done.returncode, done.stdout
            except OSError as error:
                code, output = 127, str(error)
        with log.open("a") as stream:
            stream.write(output)
        step = Step(what=what, command=words, code=code, log=log, output=output)
        self.steps.append(step)
        say(f"{what}: {'done' if step.ok else f'failed with {code}, see {log}'}")
        return step

    def check(self, environment: Environment) -> None:
        """All that one environment is for."""
        python = self._install(environment)
        if python is None:
            return
        name = environment.name
        toolkit = Path(python).with_name("toolkit")
        doctor = self.run(f"{name} doctor", [toolkit, "doctor", "--json"])
        if environment is HERE:
            environment = with_what_is_able(environment, doctor)
            if not environment.runtimes:
                told = "no runtime for a GPU is able here: the table below says why"
                self.steps.append(replace(doctor, what=f"{name} runtimes", code=1, output=told))
                say(told)
                return
        required = {} if self.rehearsal else {"GPU_RUNTIMES": ",".join(environment.runtimes)}
        plain = "-q -p no:cacheprovider -p no:benchmark"  # whose warning of xdist ends a run
        pytest = [python, *f"-m pytest {plain} --rootdir {ROOT}".split()]
        pytest += ["--numprocesses", str(self.processes)]
        self.run(f"{name} tests", [*pytest, ROOT / "tests/gpu"], required)
        if not self.rehearsal:
            suite = ROOT / "tests/conformance/test_runtimes.py"
            chosen = ["-k", " or ".join(environment.runtimes)]
            self.run(f"{name} conformance", [*pytest, suite, *chosen], required)
        self._study(environment, toolkit)

    def _install(self, environment: Environment) -> str | None:
        """The interpreter of the environment, None where it could not be made."""
        if self.python:
            return self.python
        place = self.out / "environments" / environment.name
        python = str(place / "bin/python")
        name = environment.name
        if not self.run(f"{name} venv", [sys.executable, "-m", "venv", place]).ok:
            return None
        asked = [f"{ROOT}[{environment.extras}]", *environment.also]
        installed = self.run(
            f"{name} install", [python, "-m", "pip", "install", *environment.options, *asked]
        )
        self.run(f"{name} packages", [python, "-m", "pip", "freeze"])
        return python if installed.ok else None

    def _study(self, environment: Environment, toolkit: Path) -> None:
        """LeNet, trained once, in each form on each runtime, all rows of a form in one run."""
        name = environment.name
        if not (self.out / "lenet").exists():
            trained = self._train("train", toolkit)
            if not trained.ok and self.data != EMBEDDED:
                self.data = EMBEDDED  # no network: the study is repeated on what needs none
                self._train("train on embedded data", toolkit)
        onnx = f"{name}-onnx"
        self.run(f"{name} onnx", [toolkit, *f"export lenet --to onnx --out {onnx}".split()])
        form = onnx
        for target in environment.targets:
            source = "lenet" if target == "tripy" else onnx
            made = f"{name}-{target}-form"
            asked = (
                f"export {source} --to {target} --out {made} --batches 1,{self.batch},{self.batch}"
            )
            if self.run(f"{name} {target}", [toolkit, *asked.split()]).ok:
                form = made
        asked = (
            f"bench {form} --runtime {','.join(environment.runtimes)} --batch {self.batch} "
            f"--scope forward,end_to_end --warmup {self.warmup} --runs {self.runs} "
            f"--data {self.data} --allow-fallback --out results --json"
        )
        self.run(f"{name} bench", [toolkit, *asked.split()])
        if environment.trainers:
            asked = (
                f"bench-training lenet --data {self.data} --device {self.device} --out results "
                f"--trainer {','.join(environment.trainers)} --batch-size 200 --json"
                f"{' --epochs 2 --warmup 1 --rows 200' if self.rehearsal else ''}"
            )
            self.run(f"{name} training", [toolkit, *asked.split()])

    @property
    def device(self) -> str:
        return "cpu" if self.rehearsal else "cuda"

    def _train(self, what: str, toolkit: Path) -> Step:
        asked = f"train lenet --data {self.data} --epochs {self.epochs} --seed 0 --out lenet"
        return self.run(what, [toolkit, *asked.split()])


def with_what_is_able(environment: Environment, doctor: Step) -> Environment:
    """The environment with the runtimes for a GPU that the doctor found able, and their targets."""
    known = {name: one for one in ENVIRONMENTS for name in (*one.runtimes, *one.targets)}
    try:
        rows = json.loads(doctor.output)["runtimes"]
    except (KeyError, ValueError):
        rows = []
    able = [row["name"] for row in rows if row["name"] in known and row["status"] == "ok"]
    targets = [name for name in able if name in known[name].targets]
    return replace(environment, runtimes=able, targets=targets)


def report(check: Check) -> str:
    """What was run, on what, and what came of it, as Markdown."""
    parts = (_head, _steps, _doctor, _training, _figures)
    return "\n".join(line for part in parts for line in part(check)) + "\n"


def _head(check: Check) -> Iterator[str]:
    yield "# What ran on this machine\n"
    if check.rehearsal:
        yield (
            "**A rehearsal on a CPU: the steps of the check as far as they go without a GPU. No "
            "figure below is of a GPU.**\n"
        )
    yield (
        f"LeNet at batch {check.batch}, warm-up {check.warmup}, {check.runs} runs, "
        f"on {check.data}.\n"
    )


def _steps(check: Check) -> Iterator[str]:
    yield "## Steps\n\n| step | result | output |\n| --- | --- | --- |"
    for step in check.steps:
        lines = [line for line in step.output.splitlines() if line.strip()]
        quiet = step.what.endswith(("doctor", "bench", "training", "packages"))
        told = "" if quiet else (lines or [""])[-1]
        result = "done" if step.ok else f"FAILED ({step.code}): logs/{step.log.name}"
        yield f"| {step.what} | {result} | {_cell(told)} |"
    yield ""


def _doctor(check: Check) -> Iterator[str]:
    for name, found in _documents(check, "doctor"):
        environment = found["environment"]
        yield f"## {name}: what can run\n"
        for gpu, state in zip(environment["gpus"], environment["gpu_states"], strict=True):
            yield "- " + ", ".join(f"{key} {value}" for key, value in {**gpu, **state}.items())
        yield f"- processor {environment['cpu']['model']}, Python {environment['python']}\n"
        yield "| runtime | status | version | reason |\n| --- | --- | --- | --- |"
        for runtime in found["runtimes"]:
            cells = (runtime["name"], runtime["status"], runtime["version"], runtime["reason"])
            yield f"| {' | '.join(_cell(cell or '') for cell in cells)} |"
        yield ""


def _training(check: Check) -> Iterator[str]:
    for name, found in _documents(check, "training"):
        yield f"## {name}: an epoch of training, {found['plan']['inputs']}\n"
        yield "| trainer | median ms | samples/s | ratio | losses apart | ran on |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for row in found["rows"]:
            yield f"| {' | '.join(map(_cell, _trained(row)))} |"
        yield ""
        yield from (
            f"- {row['runtime']}: {row['reason']}" for row in found["rows"] if row["reason"]
        )
        yield from (f"- warning: {warning}" for warning in found["warnings"])
        yield ""


def _trained(row: Mapping[str, Any]) -> Iterator[str]:
    found, parity = row["scopes"].get("epoch"), row["parity"]
    yield row["runtime"]
    if found is None or found["median_ns"] is None:
        yield from (row["status"], "", "")
    else:
        yield f"{found['median_ns'] / 1e6:.3f}"
        yield f"{found['samples_per_second']:,.0f}"
        yield _ratio(found)
    apart = None if parity is None else parity["max_rel"]
    yield "" if apart is None else f"{apart:.1e}"
    yield (row["provenance"] or {}).get("device", "")


def _ratio(found: Mapping[str, Any]) -> str:
    ratio = found["ratio"]
    return "" if ratio is None else f"{ratio['value']:.3f} {ratio['verdict']}"


def _figures(check: Check) -> Iterator[str]:
    for name, found in _documents(check, "bench"):
        for scope in ("forward", "end_to_end"):
            yield f"## {name}: {scope}, ms a batch of {check.batch}\n"
            yield "| runtime | median | mean | p90 | ratio | parity | ran on | precision |"
            yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
            for row in found["rows"]:
                yield f"| {' | '.join(map(_cell, _figures_of(row, scope)))} |"
            yield ""
        for row in found["rows"]:
            times = ((row["provenance"] or {}).get("details") or {}).get("device_times_ms")
            if times:
                yield f"- {row['runtime']}, by CUDA events: {json.dumps(times)}"
            if row["reason"]:
                yield f"- {row['runtime']}: {row['reason']}"
        yield from (f"- warning: {warning}" for warning in found["warnings"])
        yield ""
    yield "## The study that is repeated\n"
    yield "GeForce RTX 4060 Ti, Ryzen 5 7500F, ms a batch, mean of 100 runs:\n"
    yield "| scope | PyTorch | TensorRT | Tripy |\n| --- | --- | --- | --- |"
    for scope, times in REFERENCE.items():
        yield f"| {scope} | {' | '.join(f'{time:.3f}' for time in times.values())} |"


def _figures_of(row: Mapping[str, Any], scope: str) -> Iterator[str]:
    found = row["scopes"].get(scope)
    ran = row["provenance"] or {}
    yield row["runtime"]
    if found is None:
        yield from (row["status"], "", "", "", "")
    else:
        for key in ("median_ns", "mean_ns", "p90_ns"):
            yield "" if found[key] is None else f"{found[key] / 1e6:.3f}"
        yield _ratio(found)
        parity = row["parity"]
        yield (
            ""
            if parity is None
            else ("" if parity["passed"] else "FAILED ") + f"{parity['max_abs']:.1e}"
        )
    yield ran.get("device", "")
    yield ran.get("precision", "")


def _documents(check: Check, kind: str) -> Iterator[tuple[str, Any]]:
    """What the steps of a kind printed, by environment; without those that printed no JSON."""
    for step in check.steps:
        name, _, last = step.what.rpartition(" ")
        if last == kind:
            try:
                yield name, json.loads(step.output)
            except ValueError:
                continue


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), help="a new folder")
    parser.add_argument("--only", help="environments, separated by commas", default=None)
    parser.add_argument("--data", default="cifar10", help=f"{EMBEDDED} needs no network")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument(
        "--processes", type=int, default=4, help="tests at a time; each holds memory of the GPU"
    )
    parser.add_argument("--here", action="store_true", help="with what this interpreter has")
    parser.add_argument("--rehearse", metavar="PYTHON", help="on a CPU, with this interpreter")
    asked = parser.parse_args()
    out = asked.out.resolve()
    if out.exists():
        parser.error(f"{out} exists: name another folder with --out, or remove it")
    if not asked.rehearse and shutil.which("nvidia-smi") is None:
        parser.error("no nvidia-smi, so no NVIDIA driver: run it on a machine with a GPU")
    chosen = [REHEARSAL] if asked.rehearse else [HERE] if asked.here else list(ENVIRONMENTS)
    if asked.only is not None:
        names = asked.only.split(",")
        if unknown := set(names) - {one.name for one in chosen}:
            parser.error(f"no environment {', '.join(sorted(unknown))}")
        chosen = [one for one in chosen if one.name in names]
    (out / "logs").mkdir(parents=True)
    few = asked.rehearse is not None
    check = Check(
        out=out,
        python=sys.executable if asked.here else asked.rehearse,
        rehearsal=few,
        data=asked.data,
        epochs=asked.epochs,
        batch=1000,
        warmup=1 if few else 5,
        runs=3 if few else 100,
        processes=asked.processes,
    )
    try:
        for environment in chosen:
            check.check(environment)
    finally:
        (out / "report.md").write_text(report(check))
        packed = out.with_suffix(".tar.gz")
        with tarfile.open(packed, "w:gz") as archive:
            for name in ("report.md", "logs", "results"):
                if (out / name).exists():
                    archive.add(out / name, arcname=f"{out.name}/{name}")
        say(f"{out / 'report.md'}, and all that belongs to it: {packed}")
    return 0 if all(step.ok for step in check.steps) else 1


if __name__ == "__main__":
    sys.exit(main())
