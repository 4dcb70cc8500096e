"""Resume training from a checkpoint, with the model, data and recipe recorded in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypedDict

import numpy as np

from toolkit.core.artifact import Checkpoint
from toolkit.core.codec import decode
from toolkit.core.documents import plain
from toolkit.core.errors import UsageError
from toolkit.core.specs import ModelSpec
from toolkit.sources.resolve import open_checkpoint
from toolkit.trainers.base import Settings
from toolkit.trainers.recipe import Recipe
from toolkit.trainers.run import EpochRecord, RowCounts


class _Code(TypedDict):
    code: str
    digest: str


class _Recorded(TypedDict):
    """The part of a checkpoint's `training` that is needed to resume it."""

    framework: str
    mode: str
    recipe: Recipe
    machine: Settings
    rows: RowCounts
    preprocessing: dict[str, Any]
    source: _Code | None
    history: tuple[EpochRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to train; values that were not given are None.

    `machine` are fields of toolkit.trainers.base.Settings, `recipe` of Recipe.
    """

    model: str | None
    data: str | None
    data_settings: Mapping[str, Any]
    settings: Mapping[str, Any]
    framework: str | None
    mode: str | None
    machine: Mapping[str, Any]
    recipe: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """A checkpoint to resume from: its state, its history, and the completed request."""

    checkpoint: Checkpoint
    state: Mapping[str, np.ndarray]
    history: tuple[EpochRecord, ...]
    recipe: Recipe
    request: Request

    @classmethod
    def open(cls, source: str | os.PathLike[str], asked: Request) -> Self:
        """Open a checkpoint, and fill in what the request leaves out.

        Raises SourceError if training cannot resume from the checkpoint, and UsageError if it is of
        user code that the request does not name: a file must not decide which code runs.
        """
        checkpoint = open_checkpoint(source)
        recorded = decode(checkpoint.training, _Recorded, f"how {source} was trained")
        recipe, code = recorded["recipe"], recorded["source"]
        if code and asked.model is None:
            raise UsageError(
                f"{source} is a user model, and resuming needs its code again.",
                hint=f"Name it as it was: toolkit train {code['code']} --resume {source}.",
            )
        request = Request(
            model=asked.model or checkpoint.spec.name,
            data=asked.data or checkpoint.spec.data,
            data_settings={**checkpoint.spec.data_settings, **asked.data_settings},
            settings={**checkpoint.spec.hyperparameters, **asked.settings},
            framework=asked.framework or recorded["framework"],
            mode=asked.mode or recorded["mode"],
            machine={**vars(recorded["machine"]), **_given(asked.machine)},
            recipe={**vars(recipe), **_given(asked.recipe)},
        )
        return cls(
            checkpoint=checkpoint,
            state=checkpoint.resume_state(),
            history=recorded["history"],
            recipe=recipe,
            request=request,
        )

    def check(self, spec: ModelSpec, recipe: Recipe, training: Mapping[str, Any]) -> None:
        """Raise UsageError, naming the difference, unless the run continues that of the checkpoint.

        Machine settings may differ, because they change weights only by rounding. The run must have
        more epochs than are done, and the same learning rates in those.
        """
        was = self.checkpoint.training
        now = plain(training)
        model = self.checkpoint.spec
        self._compare("model", model.name, spec.name)
        self._compare_each("set", model.hyperparameters, spec.hyperparameters)
        self._compare("data", model.data, spec.data)
        self._compare_each("data-option", model.data_settings, spec.data_settings)
        for key in ("framework", "mode", "source"):
            self._compare(key, was[key], now[key])
        for key in ("rows", "preprocessing"):
            self._compare(f"data's {key}", was[key], now[key])
        self._compare_each("", {**was["recipe"], "epochs": None}, {**now["recipe"], "epochs": None})
        done = len(self.history)
        if recipe.epochs <= done:
            raise UsageError(
                f"{self.checkpoint.directory} has {done} epochs, and {recipe.epochs} are asked "
                "for: nothing is left to do.",
                hint=f"Give --epochs, more than {done}.",
            )
        for number in range(done):
            if not np.array_equal(self.recipe.rates(number, 8), recipe.rates(number, 8)):
                raise UsageError(
                    f"Got --epochs {recipe.epochs}, the checkpoint was for {self.recipe.epochs}: "
                    f"with schedule {recipe.schedule} its epochs would have had other rates.",
                    hint=f"Leave --epochs out, to go on to {self.recipe.epochs}.",
                )

    def _compare_each(self, kind: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for name in {**was, **now}:
            option = f"{kind} {name}".strip().replace("_", "-")
            self._compare(option, was.get(name), now.get(name))

    def _compare(self, option: str, was: Any, now: Any) -> None:
        if plain(was) != plain(now):
            raise UsageError(
                f"Got {option} {now}, but {self.checkpoint.directory} was trained with {was}.",
                hint="Leave out what the checkpoint says already, or train a new model.",
            )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
