"""Formatting of Tripy's error messages."""

from __future__ import annotations

import re

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def words_of(error: Exception) -> str:
    """Return the message of a Tripy error on one line, without ANSI colours.

    Tripy's messages quote lines of code and highlight them. An empty message gives the name of the
    error's type.
    """
    lines = (line.strip() for line in COLOUR.sub("", str(error)).splitlines())
    return " ".join(line for line in lines if line).rstrip(".") or type(error).__name__
