"""Parser of a calibration method and its number, such as `percentile=99.9`."""

from __future__ import annotations

from calibration import METHODS
from calibration.base import Method
from toolkit.core.errors import UsageError


def parse(text: str) -> Method:
    """Return the method for `name` or `name=number`.

    Raise UnknownNameError if there is no such method, and UsageError if the number is invalid or
    the method takes none.
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
