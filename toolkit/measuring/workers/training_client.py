"""Client of a worker process that trains, used by the parent process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import final

import numpy as np

from toolkit.core.codec import decode, encode
from toolkit.core.documents import Json
from toolkit.core.errors import PluginError
from toolkit.core.learning import Learning
from toolkit.core.measurement import Opening, Scope
from toolkit.core.specs import ModelSpec
from toolkit.data.base import Split
from toolkit.measuring.timing.clock import Timed
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.measuring.workers.wire import REPLY
from toolkit.trainers.base import Settings
from toolkit.trainers.recipe import Recipe

MODULE = "toolkit.measuring.workers.training_worker"


@final
class TrainingProbe:
    """Training in a worker that was started with MODULE. Runs are epochs; their losses are kept.

    Calls to the worker raise as those of WorkerProcess do.
    """

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self._first_steps: list[float] = []
        self._losses: list[float] = []
        self._rows = 0
        self._start = ""

    def open(
        self,
        framework: str,
        mode: str | None,
        spec: ModelSpec,
        recipe: Recipe,
        rows: int,
        split: Mapping[str, str],
        settings: Settings,
        own: str | None = None,
    ) -> Opening:
        """Start from fresh weights on the samples of `split`, the files of `write_split`.

        `mode` None is the trainer's first mode. `own` names a user's callable that creates the
        module. `first_run` of the returned opening is the first epoch, run once and then undone; it
        includes compilation.
        """
        message: Json = {
            "command": "train",
            "framework": framework,
            "mode": mode,
            "spec": encode(spec),
            "recipe": encode(recipe),
            "split": dict(split),
            "settings": asdict(settings),
            "own": own,
        }
        reply, _ = self._worker.ask(message)
        self._rows, self._start = rows, reply["start"]
        return decode(reply["opening"], Opening, REPLY)

    def block(self, scope: Scope, count: int, core: int | None = None) -> Timed:
        """Time the next `count` epochs of the training. Raises PluginError for another scope."""
        if scope is not Scope.EPOCH:
            raise PluginError(f"A training was timed in scope {scope}.", hint="Time epochs.")
        reply, arrays = self._worker.ask({"command": "epochs", "count": count, "core": core})
        self._losses += arrays["losses"].tolist()
        self._first_steps += arrays["first_steps"].tolist()
        return Timed(samples=arrays["samples"], rss_bytes=reply["rss_bytes"])

    def learning(self) -> Learning:
        """Return the losses of all epochs so far."""
        return Learning(
            rows=self._rows,
            start=self._start,
            first_steps=tuple(self._first_steps),
            losses=tuple(self._losses),
        )


def write_split(train: Split, directory: Path) -> dict[str, str]:
    """Write the samples to files for the workers, and return the path of each array by name."""
    paths = {}
    for name, array in (("inputs", train.inputs), ("targets", train.targets)):
        path = directory / f"{name}.npy"
        np.save(path, array, allow_pickle=False)
        paths[name] = str(path.absolute())
    return paths
