"""Exceptions of the toolkit, with the exit codes of the command line.

ToolkitError                  exit code 3: the operation failed
├── UsageError                exit code 2: the request is invalid
│   ├── UnknownNameError      a name that does not exist
│   ├── SourceError           a path that is not a model, checkpoint, artifact or data file
│   ├── OutputExistsError     the output path exists already
│   └── FeedError             an input with a wrong name, dtype or shape
├── CheckFailedError          exit code 1: the requested check failed
│   └── ParityError           the artifact differs from the model
├── IntegrityError            a stored file differs from its manifest or digest
├── UnavailableError          a package, device or compiler is missing
├── StorageError              a result could not be stored in its directory
├── PluginError               a plugin breaks its contract
├── SessionError              a session was used out of order, or its runtime failed
└── WorkerError               a worker process failed
    ├── WorkerDiedError       it exited or was killed
    ├── WorkerLimitError      it reached its limit of memory or file size
    └── WorkerTimeoutError    it did not answer in time
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Self


class ToolkitError(Exception):
    """Base class of the errors: `problem` says what failed and why, `hint` what to do."""

    exit_code: ClassVar[int] = 3

    def __init__(self, problem: str, *, hint: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        """Keep the hint when pickling, which `Exception` would lose."""
        return functools.partial(type(self), self.problem, hint=self.hint), ()

    def __str__(self) -> str:
        return f"{self.problem}\n{self.hint}"


class ToolkitWarning(UserWarning):
    """Warning about something that the user should change, while the command continues."""


class UsageError(ToolkitError):
    exit_code = 2


class UnknownNameError(UsageError):
    pass


class SourceError(UsageError):
    pass


class OutputExistsError(UsageError):
    pass


class FeedError(UsageError):
    pass


class CheckFailedError(ToolkitError):
    exit_code = 1


class ParityError(CheckFailedError):
    pass


class IntegrityError(ToolkitError):
    pass


class UnavailableError(ToolkitError):
    pass


class StorageError(ToolkitError):
    """Failure to store `result` in its directory; `path` is where it was stored instead, if any."""

    def __init__(
        self, problem: str, *, hint: str, result: Any = None, path: Path | None = None
    ) -> None:
        super().__init__(problem, hint=hint)
        self.result = result
        self.path = path


class PluginError(ToolkitError):
    pass


class SessionError(ToolkitError):
    pass


class WorkerError(ToolkitError):
    pass


class WorkerDiedError(WorkerError):
    pass


class WorkerLimitError(WorkerError):
    pass


class WorkerTimeoutError(WorkerError):
    pass


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for a name that is not in `known`, with the closest match as a hint."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    known_ones = f"Known: {', '.join(names)}." if names else "It has none."
    return UnknownNameError(f"There is no {kind} named {name!r}.", hint=guess + known_ones)


def to_wire(error: ToolkitError) -> dict[str, str]:
    """Convert an error to plain data, to send it to another process."""
    return {"error": type(error).__name__, "problem": error.problem, "hint": error.hint}


def from_wire(data: dict[str, str]) -> ToolkitError:
    """Return the error that `to_wire` converted; an unknown class becomes ToolkitError."""
    cls = globals().get(data["error"], ToolkitError)
    if not (isinstance(cls, type) and issubclass(cls, ToolkitError)):
        cls = ToolkitError
    return cls(data["problem"], hint=data["hint"])


def first_words(error: BaseException) -> str:
    """Return the type of an error and the first non-empty line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    if lines[0].startswith("Exception from "):  # OpenVINO: a source location comes first
        lines = [" ".join(lines[:3])]
    return f"{type(error).__name__}: {lines[0]}"
