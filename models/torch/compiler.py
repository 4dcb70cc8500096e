"""Check for the C++ compiler that Inductor needs."""

from __future__ import annotations

import shutil

from torch._inductor.cpp_builder import get_cpp_compiler

INSTALL = "Install one, for example: apt-get install g++"


def missing_compiler() -> str | None:
    """Return why Inductor has no usable C++ compiler, or None if it has one."""
    try:
        compiler = get_cpp_compiler()
    except Exception as error:  # torch has a separate error class for each failure
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        if shutil.which(compiler) is not None:
            return None
        reason = f"{compiler} is not on the path"
    return f"Inductor needs a C++ compiler: {reason}"
