"""Conversion between JSON values and frozen dataclasses, and types with constraints.

The annotations of a dataclass are the schema of its JSON. `decode` checks them, including the
constraints in `Annotated`. Paths are stored as strings, and 1-D int64 arrays as lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from toolkit.core.errors import SourceError, ToolkitError

T = TypeVar("T")

LARGEST = 2**63 - 1
ANOTHER_VERSION = "Use the version of the toolkit that wrote it, or make it again."

Int64 = Annotated[int, Meta(ge=-LARGEST - 1, le=LARGEST)]
Size = Annotated[int, Meta(ge=0, le=LARGEST)]
Count = Annotated[int, Meta(ge=1, le=LARGEST)]
Cores = Annotated[float, Meta(gt=0, le=2**20)]
Nanoseconds = Annotated[float, Meta(ge=0, le=LARGEST)]
Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
Text = Annotated[str, Meta(pattern=r"^[^\0]+\Z")]
Name = Annotated[str, Meta(pattern=r"^(?!\.{1,2}\Z)[^/\\\x00-\x1f\x7f]+\Z")]
FileName = Annotated[
    str,
    Meta(pattern=r"^(?:(?!\.{1,2}(?:/|\Z))[^/\\\x00-\x1f\x7f]+(?:/(?!\Z)|\Z))+\Z"),
]

_MEANINGS = {
    Digest: "`sha256:` and 64 hexadecimal digits",
    Text: "text that is not empty and has no NUL character",
    Name: "a name without /, backslashes or control characters",
    FileName: "a file name that is relative, has no part . or .., no backslash and no control "
    "character",
}

_PARTS = "parts"


def holding(parts: Any, **options: Any) -> Any:
    """Return a dataclass field for a mapping that is stored unchanged but checked against `parts`.

    `parts` is a dataclass or TypedDict. Keys that it does not define may have any value. `options`
    are passed to `dataclasses.field`.
    """
    return field(metadata={_PARTS: parts}, **options)


def encode(value: Any) -> Any:
    """Return a dataclass, or a value that contains dataclasses, as JSON values."""
    return msgspec.to_builtins(value, enc_hook=_encoded)


def decode(value: Any, cls: type[T], what: object) -> T:
    """Convert JSON values to an instance of `cls`. `what` names their origin in messages.

    Raises SourceError, which names the field and the expected value, if they do not fit `cls`.
    """
    try:
        found = msgspec.convert(value, cls, dec_hook=_decoded)
    except ToolkitError as error:  # raised by __post_init__ of a dataclass
        raise SourceError(f"Could not read {what}: {error.problem}", hint=error.hint) from error
    except (msgspec.ValidationError, RecursionError) as error:
        raise SourceError(
            f"Could not read {what}: {_described(error)}.", hint=ANOTHER_VERSION
        ) from error
    for one in fields(cls) if is_dataclass(cls) else ():
        if _PARTS in one.metadata:
            decode(getattr(found, one.name), one.metadata[_PARTS], f"the {one.name} of {what}")
    return found


def _described(error: Exception) -> str:
    """Return msgspec's message with the path of the field and with patterns described in words."""
    problem, _, path = str(error).partition(" - at ")
    for constrained, meaning in _MEANINGS.items():
        (meta,) = constrained.__metadata__  # type: ignore[attr-defined]
        problem = problem.replace(f"`str` matching regex {meta.pattern!r}", meaning)
    problem = f"{problem[:1].lower()}{problem[1:]}"
    place = path.replace("`$.", "`").replace("`$[", "`[")
    return f"{problem}, at {place}" if place not in ("", "`$`") else problem


def _encoded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str):  # a subclass, such as that of torch.__version__
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} cannot be stored as JSON")


def _decoded(cls: type, value: Any) -> Any:
    try:
        if cls is np.ndarray:
            return np.array(msgspec.convert(value, list[Int64]), np.int64)
        return Path(msgspec.convert(value, Text))
    except msgspec.ValidationError as error:
        kind = "a list of 64-bit integers" if cls is np.ndarray else "a path"
        raise ValueError(f"Expected {kind}") from error
