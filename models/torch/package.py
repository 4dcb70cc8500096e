"""Reader of AOTInductor packages (.pt2 archives with compiled code) that does not run the code.

A package has a shared library, and the C++ source of its entry point (the wrapper). The wrapper
contains the table of constants and the calls that read them.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch

from toolkit.core.errors import SourceError

LIBRARY, WRAPPER, METADATA = ".wrapper.so", ".wrapper.cpp", ".wrapper_metadata.json"
TABLE = re.compile(r"^\s*constants_info_\[(\d+)\]\.(\w+) = (.*);$", re.MULTILINE)
COUNTS = re.compile(r"AOTInductorModelBase\(\d+,\s*\d+,\s*(\d+),")
BODY = re.compile(
    r"^void AOTInductorModel::run_impl\((.*)^\} // AOTInductorModel::run_impl$",
    re.MULTILINE | re.DOTALL,
)
DECLARED = re.compile(r"constants_->at\(\d+\)$")  # names a constant, but does not read it yet
COMMENT = re.compile(r"//[^\n]*")
KERNEL = re.compile(r'^extern "C"\s+void\s+(\w+)\((.*?)\);', re.MULTILINE | re.DOTALL)
MADE = re.compile(r"\baoti_torch_empty_strided\(.*\bcached_torch_dtype_(\w+),.*&(\w+)_handle\)")
REUSED = re.compile(r"\bauto (\w+) = std::move\((\w+)\)$")
OUT = re.compile(r"\baoti_torch_cpu_(\w+_out)\(.*?\b(buf\d+)\b")
LIBRARY_CALL = re.compile(r"\baoti_torch_cpu_(\w+)\(|\baoti_torch_(proxy_executor\w+)\(")


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Row of the table of constants: a tensor that starts at element `offset` of its storage.

    The storage has `size_bytes`. `variable` is the tensor's name in the wrapper, `name` its name in
    the model. Strides are in elements.
    """

    variable: str
    name: str
    dtype: str
    offset: int
    size_bytes: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Package:
    """AOTInductor package: bytes of the library, source of the wrapper, and compile metadata."""

    path: Path
    library: bytes
    wrapper: str
    metadata: Mapping[str, str]

    def constants(self) -> list[Constant]:
        """Return the constants in the order of their bytes.

        Raises SourceError if the table has gaps or contradicts itself, or if a constant is folded
        or not a strided tensor.
        """
        rows: dict[int, dict[str, str]] = {}
        for place, key, value in TABLE.findall(self.wrapper):
            if rows.setdefault(int(place), {}).setdefault(key, value) != value:
                self.refuse(f"its table of constants says {key} of constant {place} twice")
        count = COUNTS.search(self.wrapper)
        if count is None or sorted(rows) != list(range(int(count[1]))):
            self.refuse(f"its table of constants is not whole: {len(rows)} rows were found")
        try:
            return [_constant(rows[place]) for place in sorted(rows)]
        except (KeyError, ValueError) as error:
            self.refuse(f"its table of constants cannot be read: {error}")

    def kernels(self) -> dict[str, str]:
        """Return the generated kernels, each with the types of its arguments."""
        return {name: " ".join(types.split()) for name, types in KERNEL.findall(self.wrapper)}

    def statements(self) -> list[str]:
        """Return the statements of a forward pass in order.

        Raises SourceError if the wrapper has no entry point.
        """
        body = BODY.search(self.wrapper)
        if body is None:
            self.refuse("its C++ has no entry")
        lines = (" ".join(line.split()) for line in COMMENT.sub("", body[1]).split(";"))
        return [line for line in lines if not DECLARED.search(line)]

    def calls(self) -> list[tuple[str | None, str]]:
        """Return each statement, after the name of the kernel or torch operator that it calls.

        The name is None for a statement without such a call.
        """
        names = "|".join(map(re.escape, self.kernels()))
        kernel = re.compile(rf"\b({names or '(?!)'})\(")
        found = []
        for line in self.statements():
            if own := kernel.search(line):
                found.append((own[1], line))
            else:
                theirs = LIBRARY_CALL.search(line)
                found.append((theirs and (theirs[1] or theirs[2]), line))
        return found

    def calls_with_out(self) -> list[tuple[str, str | None]]:
        """Return the torch operators that write to a given buffer, each with the buffer's dtype."""
        dtypes: dict[str, str] = {}
        found = []
        for line in self.statements():
            if made := MADE.search(line):
                dtypes[made[2]] = made[1]
            elif (again := REUSED.search(line)) and again[2] in dtypes:
                dtypes[again[1]] = dtypes[again[2]]
            elif call := OUT.search(line):
                found.append((call[1], dtypes.get(call[2])))
        return found

    def refuse(self, reason: str) -> NoReturn:
        raise SourceError(
            f"{self.path} is no whole package of AOTInductor: {reason}.",
            hint="Export the model again with `toolkit export --to aotinductor`.",
        )


def read_package(path: Path) -> Package:
    """Read a package. Raises SourceError for a file that is none, is truncated or is compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            return Package(
                path=path,
                library=_member(archive, LIBRARY),
                wrapper=_member(archive, WRAPPER).decode(),
                metadata=json.loads(_member(archive, METADATA)),
            )
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise SourceError(
            f"{path} is no package of AOTInductor: {error}.",
            hint="Give the directory that `toolkit export --to aotinductor` wrote.",
        ) from error


def cpu_features() -> list[str]:
    """Return the instruction sets of this machine, by torch's names."""
    return sorted(name for name, has in torch.cpu.get_capabilities().items() if has is True)


def _member(archive: zipfile.ZipFile, suffix: str) -> bytes:
    found = [record for record in archive.infolist() if record.filename.endswith(suffix)]
    if len(found) != 1:
        raise ValueError(f"it has {len(found)} entries {suffix}, expected one")
    if found[0].compress_type != zipfile.ZIP_STORED:  # it could unpack to any size
        raise ValueError(f"its {suffix} is compressed")
    return archive.read(found[0])


def _constant(row: Mapping[str, str]) -> Constant:
    if row["from_folded"] != "false" or not row["layout"].endswith("cached_torch_layout_strided)"):
        raise ValueError(f"{row['name']} is folded or packed")
    return Constant(
        variable=json.loads(row["name"]),
        name=json.loads(row["original_fqn"]),
        dtype=row["dtype"].removeprefix("cached_torch_dtype_"),
        offset=int(row["offset"]),
        size_bytes=int(row["data_size"]),
        shape=_numbers(row["shape"]),
        stride=_numbers(row["stride"]),
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.strip("{}").split(",") if number.strip())
