"""Isolation of the toolkit's top-level packages from user modules of the same names.

The packages `models`, `exporters`, `runtimes` and `calibration` have common names, so a user's
`models.py` beside a script precedes them on `sys.path`. Every import of these packages that can
happen in a user's process is made within `toolkit_imports()`. If a name resolves to a user module
there, the user's modules are removed from `sys.modules`, the toolkit's are imported, and the user's
are put back afterwards.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

SIBLINGS = ("models", "exporters", "runtimes", "calibration")
ROOT = Path(__file__).resolve().parents[2]

_lock = threading.RLock()
_set_aside: dict[str, ModuleType] = {}  # the toolkit's, while sys.modules has the user's
_theirs: dict[
    Path, dict[str, ModuleType]
] = {}  # the user's, by folder, between blocks of user_imports()
_depth = 0


@contextlib.contextmanager
def toolkit_imports() -> Iterator[None]:
    """Make imports of the SIBLINGS within the block give the toolkit's packages."""
    global _depth
    with _lock:
        if _depth or not (shadowed := [name for name in SIBLINGS if _is_shadowed(name)]):
            _depth += 1
            try:
                yield
            finally:
                _depth -= 1
            return
        theirs = _take(shadowed)
        sys.modules.update({k: v for k, v in _set_aside.items() if k.partition(".")[0] in shadowed})
        sys.path.insert(0, str(ROOT))
        _depth += 1
        try:
            yield
        finally:
            _depth -= 1
            sys.path.remove(str(ROOT))
            _set_aside.update(_take(shadowed))
            sys.modules.update(theirs)


@contextlib.contextmanager
def user_imports(folder: Path) -> Iterator[None]:
    """Make imports within the block search `folder` first, even for the names in SIBLINGS."""
    global _depth
    with _lock:
        names = [name for name in SIBLINGS if _is_hidden_by_ours(folder, name)]
        set_aside = _take(names)
        sys.modules.update(_theirs.get(folder, {}))
        sys.path.insert(0, str(folder))
        depth, _depth = _depth, 0
        try:
            yield
        finally:
            _depth = depth
            sys.path.remove(str(folder))
            _theirs[folder] = _take(names)
            sys.modules.update(set_aside)


def _is_hidden_by_ours(folder: Path, name: str) -> bool:
    """Return whether `folder` has a module `name` while the toolkit's or none is loaded."""
    loaded = sys.modules.get(name)
    ours_or_none = loaded is None or _is_ours(name, getattr(loaded, "__file__", None))
    spec = PathFinder.find_spec(name, [str(folder)])
    return ours_or_none and spec is not None and not _is_ours(name, spec.origin)


def _is_shadowed(name: str) -> bool:
    """Return whether an import of `name` would not give the toolkit's package."""
    loaded = sys.modules.get(name)
    if loaded is not None and not _is_ours(name, getattr(loaded, "__file__", None)):
        return True
    spec = PathFinder.find_spec(name)
    return spec is None or not _is_ours(name, spec.origin)


def _is_ours(name: str, file: str | None) -> bool:
    return file is not None and Path(file).resolve() == ROOT / name / "__init__.py"


def _take(names: list[str]) -> dict[str, ModuleType]:
    """Remove the modules of the packages `names` from sys.modules, and return them."""
    keys = [key for key in sys.modules if key.partition(".")[0] in names]
    return {key: sys.modules.pop(key) for key in keys}
