"""Methods by what a user writes."""

from __future__ import annotations

from calibration import METHODS
from calibration.base import Method
from toolkit.core.errors import UsageError


def parse(text: str) -> Method:
    """The method that `name` or `name=number` stands for.

    Raises UnknownNameError for one that is none, UsageError for a number that cannot be meant.
    """
    name, equals, number = text.partition("=")
    made = METHODS.create(name)
    if made.option is not None:
        made.number = float(made.option.parse(name, number if equals else made.option.default))
    elif equals:
        raise UsageError(
            f"Got method {text}, but {name} takes no number.", hint=f"Give {name} by itself."
        )
    return made
