"""The tree of errors, their texts, and their way between processes."""

from __future__ import annotations

import pickle
import re

import pytest

from toolkit.core import errors
from toolkit.core.errors import (
    CheckFailedError,
    FeedError,
    ParityError,
    SessionError,
    ToolkitError,
    UnknownNameError,
    UsageError,
    WorkerDiedError,
    from_wire,
    to_wire,
    unknown_name,
)

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, ToolkitError)
]


def drawn_tree() -> dict[str, str | None]:
    """Each class in the module's docstring, and the one that it is drawn below."""
    parents: dict[str, str | None] = {}
    trail: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"[│├└─ ]*(\w+Error)\b", line):
            depth = found.start(1)
            trail = [(d, name) for d, name in trail if d < depth]
            parents[found[1]] = trail[-1][1] if trail else None
            trail.append((depth, found[1]))
    return parents


def test_docstring_draws_the_tree_that_is_there():
    real = {cls.__name__: cls.__base__.__name__ for cls in CLASSES}
    assert drawn_tree() == {**real, "ToolkitError": None}


@pytest.mark.parametrize(
    ("cls", "code"),
    [
        (ToolkitError, 3),
        (SessionError, 3),
        (UsageError, 2),
        (FeedError, 2),
        (CheckFailedError, 1),
        (ParityError, 1),
    ],
)
def test_exit_code(cls: type[ToolkitError], code: int):
    assert cls.exit_code == code


def test_text_is_the_problem_then_what_to_do():
    assert str(ToolkitError("It broke.", hint="Fix it.")) == "It broke.\nFix it."


def test_unknown_name_guesses_the_nearest_and_lists_all_sorted():
    error = unknown_name("runtime", "openvin", ["torch", "openvino"])
    assert isinstance(error, UnknownNameError)
    assert "'openvin'" in error.problem
    assert error.hint == "Did you mean 'openvino'? Known: openvino, torch."


def test_unknown_name_guesses_nothing_when_nothing_is_near():
    assert unknown_name("runtime", "zzz", ["torch"]).hint == "Known: torch."


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_crosses_the_wire(cls: type[ToolkitError]):
    back = from_wire(to_wire(cls("It broke.", hint="Fix it.")))
    assert type(back) is cls
    assert (back.problem, back.hint) == ("It broke.", "Fix it.")


@pytest.mark.parametrize("name", ["NoSuchError", "difflib", "unknown_name", "Iterable"])
def test_what_is_no_error_here_comes_back_as_the_base(name: str):
    back = from_wire({"error": name, "problem": "p", "hint": "h"})
    assert type(back) is ToolkitError


def test_error_can_be_pickled():
    back = pickle.loads(pickle.dumps(WorkerDiedError("It broke.", hint="Fix it.")))
    assert (back.problem, back.hint) == ("It broke.", "Fix it.")
