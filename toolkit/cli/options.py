"""Options that several commands share, and how comma-separated values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.core.errors import UsageError

Artifact = Annotated[
    Path, typer.Argument(help="Directory of an artifact or checkpoint, or an .onnx file.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Runtimes = Annotated[
    str | None,
    typer.Option("--runtime", help="Runtimes, separated by commas.  [default: all but null]"),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads for every runtime.  [default: the cores available]"),
]
Timeout = Annotated[
    float, typer.Option(help="Seconds after which a runtime that does not answer is stopped.")
]


def names(text: str | None) -> list[str] | None:
    """`a,b` as ["a", "b"]; None stays None. Raises UsageError when nothing is named."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"Got {text!r}, expected names.", hint="Give one, or several as a,b,c.")
    return parts


def integers(text: str, option: str) -> list[int]:
    """`1,200` as [1, 200]. Raises UsageError for anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"Got {option} {text!r}, expected whole numbers.",
            hint=f"Give one, or several as {option} 1,200.",
        ) from None
