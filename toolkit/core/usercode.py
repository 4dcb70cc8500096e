"""Loading of user code, named as `file.py:callable` or `package.module:callable`."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from toolkit.core.errors import SourceError, UsageError, unknown_name
from toolkit.core.files import digest_bytes, digest_file
from toolkit.core.import_isolation import user_imports

EXPECTED = "Give file.py:callable or package.module:callable."


@dataclass(frozen=True, kw_only=True)
class UserCode:
    """Callable of the user, with its `source` as the user named it.

    `digest` is that of the file of its module, None if there is no file. `make` calls it without
    arguments, with the user's directory first on `sys.path`, and raises UsageError if it fails.
    """

    source: str
    name: str
    digest: str | None
    make: Callable[[], Any]


def is_user_code(text: str) -> bool:
    """Return whether a text is meant to name a user's callable, rather than a built-in one."""
    return ":" in text


def load_user_code(source: str) -> UserCode:
    """Import the callable that `source` names.

    A file is imported by its path, under a unique module name. Imports search the directory of the
    file first, or the current directory for a package, even for names of the toolkit's packages.
    Raises SourceError if the file or module does not exist, UnknownNameError if it does not have
    the callable, UsageError if the import fails.
    """
    place, _, name = source.rpartition(":")
    if not place or not name.isidentifier():
        raise SourceError(f"Got {source!r}, expected a place and a callable.", hint=EXPECTED)
    path = Path(place)
    is_file = path.suffix == ".py" or path.is_file()
    folder = (path.parent if is_file else Path()).resolve()
    with user_imports(folder):
        module = _from_file(path) if is_file else _from_package(place)
    made = getattr(module, name, None)
    if not callable(made):
        raise unknown_name(
            f"callable in {place}",
            name,
            [key for key, value in vars(module).items() if callable(value) and key[0] != "_"],
        )
    file = getattr(module, "__file__", None)
    return UserCode(
        source=source,
        name=name,
        digest=digest_file(Path(file)) if file else None,
        make=functools.partial(_call, source, folder, made),
    )


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        neighbours = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, neighbours, n=1)
        guess = f"Did you mean {path.with_name(near[0])}? " if near else ""
        raise SourceError(f"{path} does not exist.", hint=guess + EXPECTED)
    whole = str(path.resolve())
    unique = f"_user_{path.stem}_{digest_bytes(whole.encode())[-12:]}"
    spec = importlib.util.spec_from_file_location(unique, whole)
    if spec is None or spec.loader is None:
        raise SourceError(f"{path} is no Python file.", hint=EXPECTED)
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[unique]
        if isinstance(error, Exception | SystemExit):
            raise _failed(f"import {path}", error) from error
        raise
    return module


def _from_package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise SourceError(
                f"There is no module {name!r}, here or installed.", hint=EXPECTED
            ) from None
        raise _failed(f"import {name}", error) from error
    except (Exception, SystemExit) as error:
        raise _failed(f"import {name}", error) from error


def _call(source: str, folder: Path, made: Callable[[], Any]) -> Any:
    try:
        with user_imports(folder):
            return made()
    except (Exception, SystemExit) as error:
        raise _failed(f"call {source}", error) from error


def _failed(attempt: str, error: BaseException) -> UsageError:
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f" (line {at.tb_lineno} of {at.tb_frame.f_code.co_filename})" if at else ""
    return UsageError(
        f"Could not {attempt}: {type(error).__name__}: {error}{where}.",
        hint="Fix that code; it is called without arguments.",
    )
