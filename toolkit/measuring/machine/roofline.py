"""Peak FLOP/s and peak bandwidth of this machine, stored in the user's cache directory.

There is one file per number of threads. The directory is named after a digest of the machine's
properties, so that values measured on another machine are not used.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from toolkit.core.codec import decode
from toolkit.core.documents import Json, canonical, read_document, seal, write_document
from toolkit.core.errors import SourceError
from toolkit.core.files import digest_bytes, wrapping_os_errors

SCHEMA = "toolkit.ceilings/1"
SUFFIX = "-threads.json"
HOW = "Measure them with `toolkit doctor --ceilings`."

# CPU flags of the instructions that make a precision faster than float32: x86 first, then Arm.
INSTRUCTIONS = {
    "bfloat16": ("amx_bf16", "avx512_bf16", "bf16", "svebf16"),
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "asimddp", "i8mm", "svei8mm"),
}


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Highest measured throughput of matrix products and copies with a number of threads.

    `operations_per_second` has the rate of matrix products by precision; a multiplication and an
    addition count as two operations. `absent` has the reason why another precision has no rate.
    `copy_bytes_per_second` counts bytes read plus bytes written. `measured` is an ISO 8601 time.
    """

    threads: int
    measured: str
    operations_per_second: Mapping[str, float]
    absent: Mapping[str, str]
    copy_bytes_per_second: float


def absent_instructions(precision: str, cpu: Json) -> str | None:
    """Return why a processor has no separate peak for this precision, or None if it has one."""
    wanted = INSTRUCTIONS.get(precision, ())
    if not wanted or set(wanted) & {flag.lower() for flag in cpu["flags"]}:
        return None
    return f"the processor has none of the instructions {', '.join(wanted)}"


def prepare(cpu: Json) -> None:
    """Create the directory of this machine. Raises ToolkitError if it is not writable."""
    place = _place(cpu)
    with wrapping_os_errors(f"store ceilings in {place}"):
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass


def store(ceilings: Ceilings, cpu: Json) -> Path:
    """Write the values, replacing older ones, and return the path of the file."""
    path = _path(cpu, ceilings.threads)
    write_document(path, seal(SCHEMA, {"machine": _machine(cpu), **vars(ceilings)}))
    return path


def stored(cpu: Json, threads: int) -> Ceilings | None:
    """Return the values measured on this machine with `threads` threads, or None.

    Raises ToolkitError for a file that cannot be read or has values of another machine.
    """
    path = _path(cpu, threads)
    with wrapping_os_errors(f"look for {path}"):
        return _read(path, cpu) if path.exists() else None


def stored_threads(cpu: Json) -> list[int]:
    """Return the numbers of threads for which this machine has stored values, ascending."""
    names = (path.name.removesuffix(SUFFIX) for path in _place(cpu).glob(f"*{SUFFIX}"))
    return sorted(int(name) for name in names if name.isdecimal())


def _read(path: Path, cpu: Json) -> Ceilings:
    document = read_document(path, SCHEMA)
    if document.get("machine") != _machine(cpu):
        raise SourceError(f"{path} was taken on another machine.", hint=HOW)
    return decode(document, Ceilings, path)


def _machine(cpu: Json) -> Json:
    """Return the fields of `cpu` (see `describe_environment`) that the peaks depend on."""
    return {key: cpu[key] for key in ("model", "flags", "available_cores", "container_cores")}


def _path(cpu: Json, threads: int) -> Path:
    return _place(cpu) / f"{threads}{SUFFIX}"


def _place(cpu: Json) -> Path:
    machine = digest_bytes(canonical(_machine(cpu))).removeprefix("sha256:")[:16]
    return platformdirs.user_cache_path("inference-toolkit") / "ceilings" / machine
