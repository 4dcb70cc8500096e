"""The parent's end of a worker that trains."""

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
from toolkit.measuring.client import WorkerProcess
from toolkit.measuring.timing import Timed
from toolkit.measuring.wire import REPLY
from toolkit.training.base import Settings
from toolkit.training.recipe import Recipe

MODULE = "toolkit.measuring.training_worker"


@final
class TrainingProbe:
    """A training in a worker started with MODULE: runs are epochs, whose losses are kept.

    Every call raises as those of WorkerProcess do.
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
        """Starts from fresh weights on the rows of `split`, files of `write_split`.

        `mode` None is the trainer's first. `own` names a user's callable that makes the module.
        `first_run` of what is given is the first epoch, run once and taken back: what is compiled
        is compiled there.
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

    def block(self, scope: Scope, count: int) -> Timed:
        """`count` timed epochs; the training goes on from where it is."""
        if scope is not Scope.EPOCH:
            raise PluginError(f"A training was timed in scope {scope}.", hint="Time epochs.")
        reply, arrays = self._worker.ask({"command": "epochs", "count": count})
        self._losses += arrays["losses"].tolist()
        self._first_steps += arrays["first_steps"].tolist()
        return Timed(samples=arrays["samples"], rss_bytes=reply["rss_bytes"])

    def learning(self) -> Learning:
        """What all epochs so far came to."""
        return Learning(
            rows=self._rows,
            start=self._start,
            first_steps=tuple(self._first_steps),
            losses=tuple(self._losses),
        )


def write_split(train: Split, directory: Path) -> dict[str, str]:
    """Writes the rows where workers read them: the path of each array by its name."""
    paths = {}
    for name, array in (("inputs", train.inputs), ("targets", train.targets)):
        path = directory / f"{name}.npy"
        np.save(path, array, allow_pickle=False)
        paths[name] = str(path.absolute())
    return paths
