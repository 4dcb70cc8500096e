"""Python interpreter of each framework: this one, unless the framework needs a separate one."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from toolkit.core.errors import UnavailableError

# Interpreters, made by `make`, of frameworks that cannot share an environment with the others.
HOMES = {"mxnet": Path(".venv-mxnet/bin/python")}
WHY = {"mxnet": "mxnet 1.9.1 needs numpy 1.23, which this environment has not"}


def interpreter(framework: str, given: Mapping[str, str | os.PathLike[str]]) -> str:
    """Return the interpreter for a framework's worker: from `given`, a separate one, or this one.

    Raises UnavailableError, with how to get it, if it is missing or cannot be run.
    """
    if framework in given:
        named = Path(given[framework]).expanduser()
        if not _can_run(named):
            raise UnavailableError(
                f"The Python for {framework}, {named}, is not there or cannot be run.",
                hint=f"Give --python {framework}=PATH, the python of an environment that has "
                f"{framework} and the toolkit.",
            )
        return str(named.absolute())
    if framework not in HOMES:
        return sys.executable
    home = HOMES[framework]
    if not _can_run(home):
        raise UnavailableError(
            f"{WHY[framework]}, and there is no {home} in {Path.cwd()}.",
            hint=f"Run `make {framework}-env` in the toolkit's sources, and give "
            f"--python {framework}=PATH where they are not the current directory.",
        )
    return str(home.absolute())


def _can_run(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
