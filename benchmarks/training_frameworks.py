"""Epochs of the perceptron in TensorFlow and JAX, each mode in a process of its own.

16,512 rows of 8 numbers in batches of 64, as California Housing has them, in turn over the modes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
from figure import Figure, Place

import models
from models.initial import fresh_weights
from toolkit.data.base import Split
from toolkit.measuring.environment import available_cores
from toolkit.training import TRAINERS
from toolkit.training.base import Job, Settings
from toolkit.training.recipe import Recipe
from toolkit.training.run import epoch_of

ROWS, EPOCHS, TURNS = 16_512, 5, 3
MODES = ["tensorflow:fit", "tensorflow:function", "tensorflow:epoch", "jax:scan"]


def figures(place: Place) -> Iterator[Figure]:
    """The best epoch of each mode over the turns, and `epoch` beside `fit`."""
    seconds = {name: float("inf") for name in MODES}
    for _ in range(TURNS):
        for name in MODES:
            seconds[name] = min(seconds[name], _in_a_process(name))
    times = ", ".join(f"{name} {value:.4f} s" for name, value in seconds.items())
    ratio = seconds["tensorflow:fit"] / seconds["tensorflow:epoch"]
    yield Figure(
        what="an epoch of the perceptron, 16,512 rows, batch 64: TensorFlow epoch against fit",
        found=f"{ratio:.0f} times faster ({times})",
        promised="at least 20 times",
        kept=ratio >= 20,
    )


def _in_a_process(name: str) -> float:
    command = [sys.executable, __file__, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def epoch_seconds(framework: str, mode: str) -> float:
    """The fastest of EPOCHS epochs, compiled and warm."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(ROWS, 8)).astype(np.float32)
    train = Split(inputs=inputs, targets=inputs[:, :1] * inputs[:, 1:2])
    family = models.FAMILIES.create("mlp")
    spec = family.spec(framework)
    trainer = TRAINERS.create(framework)
    settings = Settings(threads=available_cores())
    trainer.start(settings)
    recipe = Recipe(epochs=EPOCHS, seed=0, **family.recipe)
    job = Job(
        spec=spec,
        mode=mode,
        recipe=recipe,
        train=train,
        weights=fresh_weights(trainer.shapes(spec), 0),
        settings=settings,
    )
    found = []
    with trainer.open(job) as session:
        session.prepare(epoch_of(recipe, 0, ROWS))
        for number in range(EPOCHS):
            epoch = epoch_of(recipe, number, ROWS)
            began = time.perf_counter()
            session.run_epoch(epoch)
            found.append(time.perf_counter() - began)
    return min(found)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(epoch_seconds(*sys.argv[1].split(":"))) + "\n")
