"""Runs in MXNet's interpreter: prints what differs between MXNet and the formulas in NumPy."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable

import mxnet as mx
import numpy as np

from models import FAMILIES
from models.initial import fresh_weights
from models.mxnet.norms import BatchNorm, correct_variances, variances
from toolkit.core.specs import Task, TaskKind
from toolkit.data.base import Split
from toolkit.trainers.base import Job, Settings
from toolkit.trainers.mxnet_loops import MXNetTrainer
from toolkit.trainers.mxnet_updates import SLOTS, UPDATES
from toolkit.trainers.recipe import Recipe
from toolkit.trainers.run import epoch_of

RATES = [0.1, 0.1, 0.01, 0.01, 0.05]  # changing, since that is where formulas part
Step = Callable[[np.ndarray, dict[str, np.ndarray], float, int], np.ndarray]


def expected(recipe: Recipe) -> Step:
    """The direction of torch.optim's formulas: parameters lose the rate times it."""

    def along(g: np.ndarray, kept: dict[str, np.ndarray]) -> np.ndarray:
        if not recipe.momentum:
            return g
        kept["v"] = recipe.momentum * kept.get("v", 0.0) + g
        return kept["v"]

    def sgd(g: np.ndarray, kept: dict[str, np.ndarray], rate: float, step: int) -> np.ndarray:
        return along(g, kept)

    def adam(g: np.ndarray, kept: dict[str, np.ndarray], rate: float, step: int) -> np.ndarray:
        kept["m"] = 0.9 * kept.get("m", 0.0) + 0.1 * g
        kept["s"] = 0.999 * kept.get("s", 0.0) + 0.001 * g * g
        root = np.sqrt(kept["s"] / (1 - 0.999**step))
        return kept["m"] / (1 - 0.9**step) / (root + 1e-8)

    def rmsprop(g: np.ndarray, kept: dict[str, np.ndarray], rate: float, step: int) -> np.ndarray:
        kept["s"] = 0.99 * kept.get("s", 0.0) + 0.01 * g * g
        return along(g / (np.sqrt(kept["s"]) + 1e-8), kept)

    return {"sgd": sgd, "adam": adam, "rmsprop": rmsprop}[recipe.optimizer]


def optimizer_error(name: str, momentum: float, decay: float) -> float:
    """The largest relative difference of parameters after five steps of changing rate."""
    recipe = Recipe(
        epochs=1, seed=0, batch=1, learning_rate=0.1,
        optimizer=name, momentum=momentum, weight_decay=decay,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    exact = rng.normal(size=50).astype(np.float32).astype(np.float64)
    ours = mx.nd.array(exact)
    slots = {slot: mx.nd.zeros(50) for slot in SLOTS[name]}
    direction, kept = expected(recipe), {}
    for step, rate in enumerate(RATES, 1):
        gradient = (rng.normal(size=50) * 10.0 ** rng.integers(-8, 2, 50)).astype(np.float32)
        decayed = gradient + decay * exact
        exact = exact - rate * direction(decayed, kept, rate, step)
        UPDATES[name](ours, mx.nd.array(gradient), slots, recipe, rate, step)
    return float(np.abs(ours.asnumpy() - exact).max() / np.abs(exact).max())


def variance_error() -> float:
    """Of a running variance after two batches of different size, against torch's definition."""
    norm = BatchNorm(3, positions=4)
    norm.initialize()
    exact = np.ones(3)
    rng = np.random.default_rng(0)
    for rows in (5, 2):
        x = rng.normal(2, 3, (rows, 3, 2, 2)).astype(np.float32)
        before = variances(norm)
        with mx.autograd.record():
            outputs = norm(mx.nd.array(x))
        outputs.backward()  # it is there that MXNet moves the running statistics
        correct_variances(norm, before, rows)
        exact = 0.9 * exact + 0.1 * x.astype(np.float64).var(axis=(0, 2, 3), ddof=1)
    return float(np.abs(norm.running_var.data().asnumpy() - exact).max())


def goes_on_after_restore(optimizer: str, mode: str) -> bool:
    """Whether an epoch that is taken back and run again gives the same bits."""
    spec = FAMILIES.create("mlp").spec(
        "mxnet", task=Task(kind=TaskKind.CLASSIFICATION, input_shape=(4,), outputs=3)
    )
    rng = np.random.default_rng(0)
    train = Split(
        inputs=rng.normal(size=(20, 4)).astype(np.float32), targets=rng.integers(0, 3, 20)
    )
    recipe = Recipe(epochs=1, seed=0, batch=8, learning_rate=0.01, optimizer=optimizer)
    trainer = MXNetTrainer()
    job = Job(
        spec=spec, mode=mode, recipe=recipe, train=train,
        weights=fresh_weights(trainer.shapes(spec), 0), settings=Settings(threads=1),
    )  # fmt: skip
    with trainer.open(job) as session:
        session.run_epoch(epoch_of(recipe, 0, 20))
        state = session.state()
        first = session.run_epoch(epoch_of(recipe, 1, 20))
        after = session.weights()
        session.restore(state)
        again = session.run_epoch(epoch_of(recipe, 1, 20))
        same = all((after[name] == array).all() for name, array in session.weights().items())
    return (
        same
        and math.isclose(first.metric, again.metric)
        and (first.losses.tobytes() == again.losses.tobytes())
    )


if __name__ == "__main__":
    found = {
        "optimizers": {
            f"{name}, momentum {momentum}, decay {decay}": optimizer_error(name, momentum, decay)
            for name in UPDATES
            for momentum in (0.0, 0.9)
            for decay in (0.0, 0.01)
            if not (name == "adam" and momentum)  # which no recipe has
        },
        "variance": variance_error(),
        "restores": {
            f"{optimizer}, {mode}": goes_on_after_restore(optimizer, mode)
            for optimizer, mode in (("sgd", "gluon"), ("adam", "hybrid"), ("rmsprop", "gluon"))
        },
    }
    sys.stdout.write(json.dumps(found))
