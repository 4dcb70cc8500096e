"""Which Python runs a framework: this one, unless the framework needs one of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from toolkit.core.errors import UnavailableError

# Frameworks that cannot live beside the others, and where `make` puts their Python.
HOMES = {"mxnet": Path(".venv-mxnet/bin/python")}
WHY = {"mxnet": "mxnet 1.9.1 needs numpy 1.23, which this environment has not"}


def interpreter(framework: str, given: Mapping[str, str | os.PathLike[str]]) -> str:
    """The interpreter of a framework's worker: the one in `given`, its own, or this one.

    Raises UnavailableError, with what makes it, for one that is not there.
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
