"""How long an epoch takes in each training loop, one process a loop, epochs in turn."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from figure import Figure, Place

EPOCHS = 7  # that count, of each loop
# A loop in a process of its own: an epoch for every line that it is given.
WORKER = """
import json, sys, time
import numpy as np
from models import FAMILIES
from models.initial import fresh_weights
from toolkit.core.specs import Task
from toolkit.data.base import Split
from toolkit.training import TRAINERS
from toolkit.training.base import Job, Settings
from toolkit.training.recipe import Recipe
from toolkit.training.run import epoch_of

asked = json.loads(sys.argv[1])
framework, _, mode = asked["trainer"].partition(":")
family = FAMILIES.create(asked["model"])
rng = np.random.default_rng(0)
rows, outputs = asked["rows"], asked["outputs"]
inputs = rng.standard_normal((rows, *asked["shape"])).astype(np.float32)
targets = rng.integers(0, outputs, rows) if asked["classes"] else (
    rng.standard_normal((rows, outputs)).astype(np.float32))
task = Task(kind=family.home.kind, input_shape=tuple(asked["shape"]), outputs=outputs)
spec = family.spec(framework, task=task)
recipe = Recipe(**{**family.recipe, "epochs": 1000, "seed": 0, "batch": asked["batch"]})
trainer = TRAINERS.create(framework)
job = Job(spec=spec, mode=mode, recipe=recipe, train=Split(inputs=inputs, targets=targets),
          weights=fresh_weights(trainer.shapes(spec), 0), settings=Settings(threads=2))
with trainer.open(job) as session:
    began = time.perf_counter()
    session.prepare(epoch_of(recipe, 0, rows))
    print(time.perf_counter() - began, flush=True)
    for number, _ in enumerate(sys.stdin):
        epoch = epoch_of(recipe, number, rows)
        began = time.perf_counter()
        session.run_epoch(epoch)
        print(time.perf_counter() - began, flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A model, and rows in the shape of a study's. `trainers` are framework:mode."""

    name: str
    trainers: list[str]
    model: str
    rows: int
    batch: int
    shape: list[int]
    outputs: int
    classes: bool


MLP = Work(
    name="MLP, 16,512 rows in batches of 64",
    trainers=["torch:eager", "torch:compile", "torch:fused"],
    model="mlp",
    rows=16_512,
    batch=64,
    shape=[8],
    outputs=1,
    classes=False,
)
LENET = Work(
    name="LeNet, 10,000 images in batches of 200",
    trainers=["torch:eager", "torch:compile", "torch:fused"],
    model="lenet",
    rows=10_000,
    batch=200,
    shape=[3, 32, 32],
    outputs=10,
    classes=True,
)
# What is promised: (work, the slower loop, the faster ones, so many times).
PROMISES = [
    (MLP, "torch:eager", ["torch:fused"], 8.0),
    (LENET, "torch:eager", ["torch:compile", "torch:fused"], 1.5),
]


@dataclass(kw_only=True)
class Times:
    prepare: dict[str, float] = field(default_factory=dict)
    epochs: dict[str, list[float]] = field(default_factory=dict)

    def median(self, trainer: str) -> float:
        return statistics.median(self.epochs[trainer])


def figures(_: Place) -> Iterator[Figure]:
    for work in (MLP, LENET):
        times = _measure(work)
        for trainer in work.trainers:
            yield Figure(
                what=f"{work.name}: an epoch of {trainer}, median of {EPOCHS}",
                found=f"{times.median(trainer):.4f} s "
                f"(compiling and warming up {times.prepare[trainer]:.1f} s)",
                promised="-",
                kept=True,
            )
        for promised, slow, fast, least in PROMISES:
            if promised is work:
                yield _faster(work, times, slow, fast, least)


def _faster(work: Work, times: Times, slow: str, fast: list[str], least: float) -> Figure:
    ratios = {
        name: statistics.median(
            one / other for one, other in zip(times.epochs[slow], times.epochs[name], strict=True)
        )
        for name in fast
    }
    best = max(ratios, key=lambda name: ratios[name])
    return Figure(
        what=f"{work.name}: {best} against {slow}",
        found=f"{ratios[best]:.1f} times faster",
        promised=f"at least {least:g} times",
        kept=ratios[best] >= least,
    )


def _measure(work: Work) -> Times:
    times = Times()
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for trainer in work.trainers:  # one after the other: compiling takes all cores
            running[trainer] = _start(work, trainer)
            times.prepare[trainer] = _answer(running[trainer])
            times.epochs[trainer] = []
        for turn in range(EPOCHS + 1):
            for trainer, process in running.items():
                assert process.stdin is not None
                print(turn, file=process.stdin, flush=True)
                seconds = _answer(process)
                if turn:  # in the first the others' caches are still warm
                    times.epochs[trainer].append(seconds)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return times


def _start(work: Work, trainer: str) -> subprocess.Popen[str]:
    asked: dict[str, Any] = {**vars(work), "trainer": trainer}
    del asked["trainers"], asked["name"]
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, json.dumps(asked)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _answer(process: subprocess.Popen[str]) -> float:
    assert process.stdout is not None
    return float(process.stdout.readline())
