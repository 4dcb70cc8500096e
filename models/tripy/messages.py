"""What Tripy says went wrong."""

from __future__ import annotations

import re

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def words_of(error: Exception) -> str:
    """The message in one line, without colours: Tripy shows lines of code, and marks them."""
    lines = (line.strip() for line in COLOUR.sub("", str(error)).splitlines())
    return " ".join(line for line in lines if line).rstrip(".") or type(error).__name__
