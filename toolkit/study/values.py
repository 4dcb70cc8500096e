"""Types of the values in a study's file, and their checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.core.errors import SourceError, UsageError

DEEPEST = 16  # levels of tables and lists; a study has five
SHOWN = 60  # characters of a value in a message
WHOLE = range(-(2**63), 2**63)  # the range of integers in TOML


@dataclass(frozen=True)
class Type:
    """Type of a value: `fits` checks it, `expected` describes it for messages."""

    expected: str
    fits: Callable[[Any], bool]

    def check(self, place: str, value: Any) -> None:
        """Raise UsageError for a value of another type."""
        if not self.fits(value):
            raise UsageError(
                f"Got {place} = {shown(value)}, expected {self.expected}.",
                hint="Correct the study; docs/studies.md shows each kind of section.",
            )


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _is_list(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(fits, value))


def _is_alternatives(value: Any) -> bool:
    return _is_scalar(value) or (bool(value) and _is_list(value, _is_scalar))


def _is_options(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_alternatives, value.values()))


def _is_choice(value: Any) -> bool:
    return _is_scalar(value) or _is_list(value, lambda one: _is_scalar(one) or SCALARS.fits(one))


def _is_rule(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_choice, value.values()))


TEXT = Type("a text", lambda value: isinstance(value, str))
TEXTS = Type("a list of texts", lambda value: _is_list(value, TEXT.fits))
FLAG = Type("true or false", lambda value: isinstance(value, bool))
FLAG_OR_TABLE = Type("true, false or a table", lambda value: isinstance(value, bool | dict))
COUNT = Type("a whole number of at least 1", lambda value: type(value) is int and value >= 1)
SCALARS = Type("a list of texts, numbers, true or false", lambda value: _is_list(value, _is_scalar))
OPTIONS = Type(
    "a table in which each value is a text, a number, true, false, or a list of them", _is_options
)
RULE = Type(
    "a table in which each value is a text, a number, true, false, or a list of values", _is_rule
)
TABLES = Type("a list of tables", lambda value: _is_list(value, lambda one: isinstance(one, dict)))


def shown(value: Any) -> str:
    """Return the representation of a value for messages, shortened to SHOWN characters."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def check_values(document: Mapping[str, Any], source: str) -> None:
    """Raise SourceError unless every value of a TOML document can be stored as JSON.

    Tables and lists may be nested at most DEEPEST deep. Numbers have to be finite, and integers
    have to fit 64 bits. Dates and times are not allowed.
    """
    ahead: list[tuple[str, Any, int]] = [("", document, 0)]
    while ahead:
        place, value, depth = ahead.pop()
        if isinstance(value, dict | list):
            if depth > DEEPEST:
                raise too_deep(source)
            parts = value.items() if isinstance(value, dict) else enumerate(value, 1)
            for name, part in parts:
                ahead.append((f"{place}.{name}" if place else str(name), part, depth + 1))
        elif (wrong := _wrong(value)) is not None:
            raise SourceError(
                f"{source} has {wrong} at {shown(place)}.",
                hint="Give a text, a finite number, true or false.",
            )


def too_deep(source: str) -> SourceError:
    """Return the error for tables or lists that are nested too deeply."""
    return SourceError(
        f"{source} has tables or lists that are nested more than {DEEPEST} deep.",
        hint="Write the study with fewer levels; docs/studies.md shows one.",
    )


def _wrong(value: Any) -> str | None:
    """Return a description of a value that cannot be stored, None for a valid value."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f"the number {value}"
    if isinstance(value, int):  # or a bool
        return None if value in WHOLE else "a whole number that does not fit 64 bits"
    return None if isinstance(value, str) else f"a {type(value).__name__}"
