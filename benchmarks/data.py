"""How fast batches of images are made, beside how fast they are trained on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
from figure import Figure, Place

from models import FAMILIES
from models.initial import fresh_weights
from toolkit.core.specs import Task, TaskKind
from toolkit.data.base import Split
from toolkit.measuring.machine.environment import session_options
from toolkit.trainers import TRAINERS
from toolkit.trainers.base import Job, Settings
from toolkit.trainers.recipe import Recipe
from toolkit.trainers.run import epoch_of

ROWS = 10_000
BATCH = 200
ROUNDS = 7
AUGMENTATION = ("crop", "flip")
TASK = Task(kind=TaskKind.CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)


def figures(_: Place) -> Iterator[Figure]:
    """Rows like CIFAR's, gathered, cropped and flipped in batches of 200: alone, and while LeNet,
    the smallest of the networks, trains on them; in turn."""
    rng = np.random.default_rng(0)
    split = Split(
        inputs=rng.standard_normal((ROWS, *TASK.input_shape), dtype=np.float32),
        targets=rng.integers(0, TASK.outputs, ROWS),
    )
    recipe = Recipe(epochs=1, seed=0, batch=BATCH, learning_rate=0.01, augmentation=AUGMENTATION)
    epoch = epoch_of(recipe, 0, ROWS)
    family = FAMILIES.create("lenet")
    spec = family.spec("torch", task=TASK)
    trainer = TRAINERS.create("torch")
    job = Job(
        spec=spec,
        mode=next(iter(trainer.modes)),
        recipe=recipe,
        train=split,
        weights=fresh_weights(trainer.shapes(spec), 0, family.initialisation),
        settings=Settings(threads=session_options(None).threads),
    )
    with trainer.open(job) as session:
        session.prepare(epoch)
        work: dict[str, Callable[[], object]] = {
            "pipeline": lambda: sum(len(batch) for batch in epoch.batches(split)),
            "epoch": lambda: session.run_epoch(epoch),
        }
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(ROUNDS):
            for name, run in work.items():
                began = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - began)
    alone, trained = (ROWS / statistics.median(seconds[name]) for name in work)
    yield Figure(
        what=f"batches of {BATCH} cropped and flipped images, alone (trained on by a LeNet)",
        found=f"{alone:,.0f} samples/s ({trained:,.0f})",
        promised="at least 3 times as many",
        kept=alone >= 3 * trained,
    )
