"""Every error that the toolkit raises on purpose.

ToolkitError                  exit code 3: it could not be done
├── UsageError                exit code 2: what was asked for cannot be meant
│   ├── UnknownNameError      a name that no registry holds
│   ├── SourceError           a path that is no model, checkpoint, artifact or data
│   ├── OutputExistsError     the place to write to is taken
│   └── FeedError             an input with a wrong name, dtype or shape
├── CheckFailedError          exit code 1: the check that was asked for failed
│   └── ParityError           the artifact is not the model
├── IntegrityError            a stored file is not what its manifest says
├── UnavailableError          a package, device or compiler is missing
├── StorageError             a result could not be stored where it was to be
├── PluginError               a plugin breaks its contract
├── SessionError              a session was used out of order, or its runtime failed
└── WorkerError               a worker process could not do its work
    ├── WorkerDiedError       it ended by itself or was killed
    ├── WorkerLimitError      it reached a limit of its memory or of a file's size
    └── WorkerTimeoutError    it gave no answer in time
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Self


class ToolkitError(Exception):
    """What was attempted, what was got and expected (`problem`); what to do next (`hint`)."""

    exit_code: ClassVar[int] = 3

    def __init__(self, problem: str, *, hint: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        """Pickling keeps the hint, which `Exception` knows nothing of."""
        return functools.partial(type(self), self.problem, hint=self.hint), ()

    def __str__(self) -> str:
        return f"{self.problem}\n{self.hint}"


class ToolkitWarning(UserWarning):
    """Something that the user should change, though the command goes on."""


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
    """A `result` that was measured and not stored in its place; `path` is where it is instead."""

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
    """The error for a name that is not among `known`, with the nearest one that is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    known_ones = f"Known: {', '.join(names)}." if names else "It has none."
    return UnknownNameError(f"There is no {kind} named {name!r}.", hint=guess + known_ones)


def to_wire(error: ToolkitError) -> dict[str, str]:
    """An error as plain data, to cross from one process to another."""
    return {"error": type(error).__name__, "problem": error.problem, "hint": error.hint}


def from_wire(data: dict[str, str]) -> ToolkitError:
    """The error that `to_wire` described; a class unknown here comes back as ToolkitError."""
    cls = globals().get(data["error"], ToolkitError)
    if not (isinstance(cls, type) and issubclass(cls, ToolkitError)):
        cls = ToolkitError
    return cls(data["problem"], hint=data["hint"])


def first_words(error: BaseException) -> str:
    """Return the first line of an error's message that has text, with the error's type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    if lines[0].startswith("Exception from "):  # OpenVINO: the place comes before the message
        lines = [" ".join(lines[:3])]
    return f"{type(error).__name__}: {lines[0]}"
