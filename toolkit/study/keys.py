"""Keys of the sections of a study, and the types of their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.core.errors import UsageError, unknown_name
from toolkit.study.values import COUNT, FLAG_OR_TABLE, OPTIONS, RULE, Type, shown

Scalar = str | int | float | bool


@dataclass(frozen=True)
class Key:
    """Key of a section: the type of its value. A list of values gives a cell for each.

    With `many`, the value of a cell is itself a list, and a list of lists gives a cell for each.
    With `table`, the value is a table of options by name; an option with a list gives a cell for
    each item.
    """

    type: type[Scalar] = str
    many: bool = False
    required: bool = False
    table: bool = False

    def alternatives(self, name: str, given: Any) -> list[Any]:
        """Return the values, one for each cell, with integers converted to float where needed.

        Raises UsageError for a value of another type or, unless `many`, an empty list.
        """
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
        """Raise UsageError for a value that does not fit the key."""
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
"""Keys of the sections, by step. The steps are in order: a cell only depends on earlier ones."""

OF_SECTIONS: Mapping[str, Type] = {
    "where": RULE,
    "quick": FLAG_OR_TABLE,
    "repetitions": COUNT,
}
"""Keys that every section may have. `where` has no effect in [[train]] and [[bench-training]]."""


def check_step(name: str) -> None:
    """Raise UnknownNameError unless `name` is a step."""
    if name not in STEPS:
        raise unknown_name("section of a study", name, STEPS)


def check_keys(step: str, given: Mapping[str, Any]) -> None:
    """Raise UnknownNameError for a key that the step lacks, UsageError for an invalid value."""
    keys = STEPS[step]
    for name, value in given.items():
        if name in OF_SECTIONS:
            OF_SECTIONS[name].check(name, value)
        elif name in keys:
            keys[name].check(name, value)
        else:
            raise unknown_name(f"key of [[{step}]]", name, [*keys, *OF_SECTIONS])


def check_required(step: str, given: Mapping[str, Any]) -> None:
    """Raise UsageError if a required key of the step is missing."""
    for name, key in STEPS[step].items():
        if key.required and name not in given:
            raise UsageError(f"[[{step}]] has no {name}.", hint=f"Add {name} to it.")
