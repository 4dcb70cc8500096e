"""Options of plugins, as given by `--set`: their defaults, types and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.core.errors import UsageError, unknown_name

Value = bool | int | float | str

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class Option:
    """Option of a plugin. Its type is that of its default.

    Numbers must be from `least` to `most`, and any value must be one of `choices`, where given.
    """

    default: Value
    help: str
    least: float | None = None
    most: float | None = None
    choices: tuple[Value, ...] | None = None

    def describe(self) -> str:
        """Return the expected values in words."""
        if self.choices is not None:
            return " or ".join(map(str, self.choices))
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, str):
            return "a text"
        what = "a whole number" if isinstance(self.default, int) else "a number"
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (("at least", self.least), ("at most", self.most))
            if bound is not None
        ]
        return f"{what}, {', '.join(bounds)}" if bounds else what

    def parse(self, name: str, given: Value) -> Value:
        """Convert a text or value to the option's type. Raises UsageError if it is invalid."""
        try:
            value = self._convert(given)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._refusal(name, given) from None
        if self.choices is not None and value not in self.choices:
            raise self._refusal(name, given)
        if not isinstance(value, (bool, str)):
            low = -float("inf") if self.least is None else self.least
            high = float("inf") if self.most is None else self.most
            if not low <= value <= high:
                raise self._refusal(name, given)
        return value

    def _convert(self, given: Value) -> Value:
        if isinstance(self.default, bool):
            return _TRUTH[str(given).lower()]
        if isinstance(given, bool) or not isinstance(given, (int, float, str)):
            raise TypeError(given)
        if isinstance(self.default, int):
            if isinstance(given, float) and not given.is_integer():
                raise ValueError(given)
            return int(given)
        return type(self.default)(given)

    def _refusal(self, name: str, given: Value) -> UsageError:
        return UsageError(
            f"Got {name}={given}, expected {self.describe()}.",
            hint=f"{name}: {self.help} Default: {self.default}.",
        )


def settle(
    what: str, options: Mapping[str, Option], given: Mapping[str, Any] | None
) -> dict[str, Value]:
    """Return the value of every option: the given one, or its default.

    `what` names the plugin in errors. Raises UnknownNameError for an unknown option, and UsageError
    for an invalid value.
    """
    given = given or {}
    for name in given:
        if name not in options:
            raise unknown_name(f"option of {what}", name, options)
    return {
        name: option.parse(name, given.get(name, option.default))
        for name, option in options.items()
    }
