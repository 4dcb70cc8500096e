"""What may stand in the sections of a study, and of which type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.core.errors import UsageError, unknown_name

Scalar = str | int | float | bool


@dataclass(frozen=True)
class Key:
    """One value: `many` of them together, or any of a list, each a cell of its own.

    A `table` holds options by name, each of which may be any of a list too.
    """

    type: type[Scalar] = str
    many: bool = False
    required: bool = False
    table: bool = False

    def alternatives(self, name: str, given: Any) -> list[Any]:
        """The values that cells are made of. Raises UsageError for one of another type."""
        if self.table:
            raise AssertionError(f"{name} is a table")
        if not self.many:
            values = given if isinstance(given, list) else [given]
            return [self._typed(name, value) for value in values]
        if not isinstance(given, list):
            raise UsageError(
                f"Got {name} = {given!r}, expected a list.",
                hint=f'Write {name} = ["…"]; a list of lists makes a cell of each.',
            )
        lists = given if given and all(isinstance(one, list) for one in given) else [given]
        return [[self._typed(name, value) for value in one] for one in lists]

    def _typed(self, name: str, value: Any) -> Scalar:
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, self.type) or (isinstance(value, bool) and self.type is not bool):
            raise UsageError(
                f"Got {name} = {value!r}, expected {NAMES[self.type]}.",
                hint="Correct the study.",
            )
        return value


NAMES: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}

_RECIPE = {
    "optimizer": Key(),
    "learning_rate": Key(float),
    "momentum": Key(float),
    "weight_decay": Key(float),
}
_TRAINED = {
    "model": Key(required=True),
    "data": Key(required=True),
    "settings": Key(table=True),
    "data_settings": Key(table=True),
    "seed": Key(int),
    "threads": Key(int),
    "gpu": Key(),
}
_MEASURED = {
    "batch": Key(int),
    "threads": Key(int),
    "processes": Key(int),
    "max_seconds": Key(float),
    "warmup": Key(int),
    "runs": Key(int),
}

STEPS: Mapping[str, Mapping[str, Key]] = {
    "train": {
        **_TRAINED,
        **_RECIPE,
        "trainer": Key(),
        "epochs": Key(int),
        "batch": Key(int),
        "schedule": Key(),
        "augmentation": Key(many=True),
        "device": Key(),
        "loader_workers": Key(int),
        "deterministic": Key(bool),
        "processes": Key(int),
    },
    "export": {"to": Key(required=True), "passes": Key(many=True)},
    "calibrate": {
        "preset": Key(required=True),
        "method": Key(),
        "samples": Key(int),
        "max_drop": Key(float),
    },
    "verify": {"runtimes": Key(many=True), "device": Key(), "max_drop": Key(float)},
    "bench": {
        **_MEASURED,
        "runtimes": Key(many=True),
        "scopes": Key(many=True),
        "device": Key(),
        "gpu": Key(),
        "tuning": Key(table=True),
    },
    "bench-training": {
        **_TRAINED,
        **_RECIPE,
        **_MEASURED,
        "trainers": Key(many=True, required=True),
        "device": Key(),
        "rows": Key(int),
    },
}
"""By the step of the toolkit that a section is for, in the order in which they follow each other:
what is trained is exported, what is exported is calibrated, and all of it verified and measured."""

OF_SECTIONS = frozenset({"where", "quick", "repetitions"})


def check_step(name: str) -> None:
    """Raises UnknownNameError for what is no step."""
    if name not in STEPS:
        raise unknown_name("section of a study", name, STEPS)


def check_keys(step: str, given: Mapping[str, Any]) -> None:
    """Raises UnknownNameError for a key that the step has not, UsageError for one that lacks."""
    keys = STEPS[step]
    for name, value in given.items():
        if name not in keys and name not in OF_SECTIONS:
            raise unknown_name(f"key of [[{step}]]", name, [*keys, *OF_SECTIONS])
        if name in keys and keys[name].table and not isinstance(value, dict):
            raise UsageError(
                f"Got {name} = {value!r} in [[{step}]], expected a table.",
                hint=f"Write {name}.NAME = VALUE.",
            )
    for name, key in keys.items():
        if key.required and name not in given:
            raise UsageError(f"[[{step}]] has no {name}.", hint=f"Add {name} to it.")
