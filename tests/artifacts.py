"""Trained checkpoints and exported artifacts that several tests read.

They are made once for all test processes, and again after a source file of the product changed.
Tests must copy an artifact before they change it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".pytest_cache" / "artifacts"
SOURCES = ("toolkit", "models", "exporters", "runtimes", "calibration")
DIGESTS = "digests.json"


def made_once(name: str, key: Sequence[object], make: Callable[[Path], None]) -> Path:
    """Return a directory that `make` has filled, for this `key` and these sources."""
    digest = hashlib.sha256(json.dumps([name, *map(str, key), _sources()]).encode()).hexdigest()
    place = PLACE / name / digest[:16]
    place.parent.mkdir(parents=True, exist_ok=True)
    with (PLACE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _intact(place):
            for old in place.parent.iterdir():
                shutil.rmtree(old)
            partial = place.with_name("partial")
            partial.mkdir()
            make(partial)
            (partial / DIGESTS).write_text(json.dumps(_digests(partial)))
            partial.rename(place)
    return place


def _intact(place: Path) -> bool:
    record = place / DIGESTS
    return record.is_file() and json.loads(record.read_text()) == _digests(place)


def _digests(place: Path) -> dict[str, str]:
    files = (path for path in place.rglob("*") if path.is_file() and path.name != DIGESTS)
    return {
        str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
    }


def _sources() -> str:
    """The digest of the product, and of the versions that it is tested with."""
    files = sorted(path for package in SOURCES for path in (ROOT / package).rglob("*.py"))
    digest = hashlib.sha256()
    for path in (ROOT / "constraints.txt", *files):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
