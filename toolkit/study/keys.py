"""What may stand in the sections of a study, and of which type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.core.errors import UsageError, unknown_name
from toolkit.study.values import COUNT, FLAG_OR_TABLE, OPTIONS, RULE, Type, shown

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
        """Return the values that cells are made of. Raise UsageError for one of another type."""
        if self.many and not isinstance(given, list):
            raise UsageError(
                f"Got {name} = {shown(given)}, expected a list.",
                hint=f'Write {name} = ["…"]; a list of lists makes a cell of each.',
            )
        if self.many:
            lists = given if given and all(isinstance(one, list) for one in given) else [given]
            return [[self._typed(name, value) for value in one] for one in lists]
        values = given if isinstance(given, list) else [given]
        if not values:
            raise UsageError(
                f"Got {name} = [], expected at least one value.",
                hint=f"Give {name} a value, or leave it out.",
            )
        return [self._typed(name, value) for value in values]

    def check(self, name: str, given: Any) -> None:
        """Raise UsageError for a value of another type."""
        if self.table:
            OPTIONS.check(name, given)
        else:
            self.alternatives(name, given)

    def _typed(self, name: str, value: Any) -> Scalar:
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, self.type) or (isinstance(value, bool) and self.type is not bool):
            raise UsageError(
                f"Got {name} = {shown(value)}, expected {NAMES[self.type]}.",
                hint="Correct the study; docs/studies.md shows each kind of section.",
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

OF_SECTIONS: Mapping[str, Type] = {
    "where": RULE,
    "quick": FLAG_OR_TABLE,
    "repetitions": COUNT,
}
"""The keys that every section may have."""


def check_step(name: str) -> None:
    """Raise UnknownNameError for the name of no step."""
    if name not in STEPS:
        raise unknown_name("section of a study", name, STEPS)


def check_keys(step: str, given: Mapping[str, Any]) -> None:
    """Raise UnknownNameError for a key that the step does not have, UsageError for a wrong type."""
    keys = STEPS[step]
    for name, value in given.items():
        if name in OF_SECTIONS:
            OF_SECTIONS[name].check(name, value)
        elif name in keys:
            keys[name].check(name, value)
        else:
            raise unknown_name(f"key of [[{step}]]", name, [*keys, *OF_SECTIONS])


def check_required(step: str, given: Mapping[str, Any]) -> None:
    """Raise UsageError for a key that the step needs and that is not given."""
    for name, key in STEPS[step].items():
        if key.required and name not in given:
            raise UsageError(f"[[{step}]] has no {name}.", hint=f"Add {name} to it.")
