"""Training steps of odenet in a process of their own; prints what was found as JSON.

`memory GRADIENT STEPS`: bytes. `speed`: nanoseconds a step by row, a value a round. `apart`: how
far the gradient of adjoint is from the exact one, relatively.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchdiffeq import odeint_adjoint

import models
from models.initial import fresh_weights
from models.torch.odenet import TrunkModule
from toolkit.data.base import Split
from toolkit.trainers import TRAINERS
from toolkit.trainers.base import Job, Settings
from toolkit.trainers.recipe import Recipe
from toolkit.trainers.run import epoch_of

BATCH = 200
ACCURACY = 0.25
ROUNDS = 30
STEPS = 3  # of a row, in one round
Step = Callable[[], object]


class StudyDynamics(nn.Module):
    """f(t, h) as it is commonly written, for torchdiffeq."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, time: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            clock = torch.ones_like(state[:, :1]) * time
            state = F.relu(self.bn(self.conv(torch.cat([state, clock], 1))))
        return state


class StudyLayer(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dynamics = StudyDynamics(channels)
        self.register_buffer("times", torch.tensor([0.0, 1.0]), persistent=False)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        options = {"step_size": ACCURACY}
        return odeint_adjoint(self.dynamics, state, self.times, method="euler", options=options)[-1]


def odenet(gradient: str, accuracy: float) -> nn.Module:
    settings = {"gradient": gradient, "accuracy": accuracy}
    spec = models.FAMILIES.create("odenet").spec("torch", settings=settings)
    return models.build(spec, "torch")


def training(module: nn.Module) -> Step:
    """A step of Adam on a batch of random images."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.001)

    def step() -> object:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(inputs), targets).backward()
        return optimizer.step()

    return step


def compiled_training() -> Step:
    """The same step as `toolkit train --mode compile` runs it: an epoch of one batch."""
    family = models.FAMILIES.create("odenet")
    rng = np.random.default_rng(0)
    rows = Split(
        inputs=rng.standard_normal((BATCH, 3, 32, 32), dtype=np.float32),
        targets=rng.integers(0, 10, BATCH),
    )
    recipe = Recipe(epochs=1, seed=0, batch=BATCH, learning_rate=0.001, optimizer="adam")
    trainer = TRAINERS.create("torch")
    spec = family.spec("torch", settings={"gradient": "adjoint", "accuracy": ACCURACY})
    session = trainer.open(
        Job(
            spec=spec,
            mode="compile",
            recipe=recipe,
            train=rows,
            weights=fresh_weights(trainer.shapes(spec), 0),
            settings=Settings(threads=torch.get_num_threads()),
        )
    )
    epoch = epoch_of(recipe, 0, BATCH)
    return lambda: session.run_epoch(epoch)


def apart() -> float:
    """Over all weights of the network as it starts."""
    found = []
    for gradient in ("adjoint", "direct"):
        torch.manual_seed(0)
        module = odenet(gradient, ACCURACY)
        inputs, targets = torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))
        F.cross_entropy(module(inputs), targets).backward()
        found.append(
            torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        )
    return float((found[0] - found[1]).norm() / found[1].norm())


def memory(gradient: str, steps: int) -> int:
    """The growth of the largest resident size (VmHWM) from one small step on.

    The small step brings in code and pools of threads, which are no part of the growth.
    """
    module = odenet(gradient, 1 / steps)
    module(torch.randn(2, 3, 32, 32)).sum().backward()
    step = training(module)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to the resident size of now
    before = resident("VmHWM")
    for _ in range(3):
        step()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def speed() -> dict[str, list[float]]:
    rows = {
        "torchdiffeq": training(TrunkModule(StudyLayer(32), StudyLayer(64), 10)),
        "eager": training(odenet("adjoint", ACCURACY)),
        "compile": compiled_training(),
    }
    for step in rows.values():
        for _ in range(3):
            step()
    found: dict[str, list[float]] = {name: [] for name in rows}
    order = random.Random(0)
    for _ in range(ROUNDS):
        for name in order.sample(list(rows), len(rows)):
            rows[name]()  # meets cold caches
            began = time.perf_counter_ns()
            for _ in range(STEPS):
                rows[name]()
            found[name].append((time.perf_counter_ns() - began) / STEPS)
    return found


if __name__ == "__main__":
    what, *args = sys.argv[1:]
    if what == "memory":
        found: object = memory(args[0], int(args[1]))
    else:
        found = speed() if what == "speed" else apart()
    sys.stdout.write(json.dumps(found))
