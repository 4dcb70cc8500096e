"""Lets `models`, `exporters`, `runtimes`, `calibration` mean ours to us, the user's to the user.

Our packages are flat and have common names, so a user's `models.py` beside his script comes first
on his path. Every import of ours that can happen in his process goes through `ours()`: when his
path leads elsewhere for one of the names, it sets his modules aside, imports ours, and puts his
back, so that each side keeps its own.
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
_set_aside: dict[str, ModuleType] = {}  # ours, while the user's stand in sys.modules
_theirs: dict[Path, dict[str, ModuleType]] = {}  # the user's, by folder, while ours stand there
_depth = 0


@contextlib.contextmanager
def ours() -> Iterator[None]:
    """Within the block, an import of a sibling package gives ours, whatever `sys.path` says."""
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
def theirs(folder: Path) -> Iterator[None]:
    """Within the block, imports look in `folder` first, for modules named as our packages too."""
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
    """Whether `folder` has a module of this name, and none but ours is loaded."""
    loaded = sys.modules.get(name)
    ours_or_none = loaded is None or _is_ours(name, getattr(loaded, "__file__", None))
    spec = PathFinder.find_spec(name, [str(folder)])
    return ours_or_none and spec is not None and not _is_ours(name, spec.origin)


def _is_shadowed(name: str) -> bool:
    """Whether an import of `name` would give something that is not ours."""
    loaded = sys.modules.get(name)
    if loaded is not None and not _is_ours(name, getattr(loaded, "__file__", None)):
        return True
    spec = PathFinder.find_spec(name)
    return spec is None or not _is_ours(name, spec.origin)


def _is_ours(name: str, file: str | None) -> bool:
    return file is not None and Path(file).resolve() == ROOT / name / "__init__.py"


def _take(names: list[str]) -> dict[str, ModuleType]:
    """Removes the modules of `names` from sys.modules and gives them."""
    keys = [key for key in sys.modules if key.partition(".")[0] in names]
    return {key: sys.modules.pop(key) for key in keys}
