"""How long an epoch takes in each training loop, by `toolkit.bench_training` itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from figure import Figure, Place

import toolkit
from toolkit.core.measurement import Result, Row, Scope
from toolkit.measuring.figures.summary import compare_rows, median_of
from toolkit.measuring.timing.engine import Procedure

SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Promise:
    """That the best of `fast` is so many times faster than `slow`."""

    fast: tuple[str, ...]
    slow: str
    times: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """A model, and rows in the shape of a study's. `trainers` are framework:mode."""

    name: str
    model: str
    rows: int
    batch: int
    shape: tuple[int, ...]
    classes: int | None
    trainers: tuple[str, ...]
    promises: tuple[Promise, ...]


MLP = Work(
    name="MLP, 16,512 rows in batches of 64",
    model="mlp",
    rows=16_512,
    batch=64,
    shape=(8,),
    classes=None,
    trainers=(
        "torch:eager", "torch:compile", "torch:fused", "tensorflow:fit", "tensorflow:function",
        "tensorflow:epoch", "jax:jit", "jax:scan",
    ),
    promises=(
        Promise(fast=("torch:fused",), slow="torch:eager", times=8.0),
        Promise(fast=("tensorflow:epoch",), slow="tensorflow:fit", times=20.0),
    ),
)  # fmt: skip
LENET = Work(
    name="LeNet, 10,000 images in batches of 200",
    model="lenet",
    rows=10_000,
    batch=200,
    shape=(3, 32, 32),
    classes=10,
    trainers=("torch:eager", "torch:compile", "torch:fused"),
    promises=(Promise(fast=("torch:compile", "torch:fused"), slow="torch:eager", times=1.5),),
)


def figures(place: Place) -> Iterator[Figure]:
    for work in (MLP, LENET):
        result = toolkit.bench_training(
            work.model,
            data=str(_rows(work, place)),
            trainers=work.trainers,
            batches=[work.batch],
            procedure=Procedure(max_seconds=SECONDS),
            out=place.results,
        )
        yield from (_epoch(work, row) for row in result.rows)
        yield from (_faster(work, promise, result) for promise in work.promises)


def _rows(work: Work, place: Place) -> str:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((work.rows, *work.shape), dtype=np.float32)
    if work.classes is None:
        targets = rng.standard_normal((work.rows, 1), dtype=np.float32)
    else:
        targets = rng.integers(0, work.classes, work.rows)
    path = place.directory / f"{work.model}.npz"
    np.savez(
        path, inputs=inputs, targets=targets, test_inputs=inputs[:10], test_targets=targets[:10]
    )
    return str(path)


def _epoch(work: Work, row: Row) -> Figure:
    median = median_of(row, Scope.EPOCH)
    first = row.openings[0].first_run_ns if row.openings else 0
    return Figure(
        what=f"{work.name}: an epoch of {row.runtime}, median",
        found=f"{median / 1e9:.4f} s (the first {first / 1e9:.1f} s)"
        if median
        else f"{row.reason}",
        promised="-",
        kept=median is not None,
    )


def _faster(work: Work, promise: Promise, result: Result) -> Figure:
    rows = {row.runtime: row for row in result.rows}
    ratios = {
        name: ratio
        for name in promise.fast
        if (ratio := compare_rows(rows[name], rows[promise.slow], Scope.EPOCH))
    }
    best = min(ratios, key=lambda name: ratios[name].value, default=promise.fast[0])
    times = 1 / ratios[best].value if ratios else 0.0
    return Figure(
        what=f"{work.name}: {best} against {promise.slow}",
        found=f"{times:.1f} times faster",
        promised=f"at least {promise.times:g} times",
        kept=times >= promise.times,
    )
