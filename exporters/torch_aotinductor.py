"""torch -> .pt2, compiled ahead of time (AOTInductor): a package of machine code and weights."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from elftools.elf.elffile import ELFFile
from torch._inductor.cpu_vec_isa import pick_vec_isa
from torch._inductor.utils import fresh_cache
from torch.export import ExportedProgram
from torch.fx.experimental import _config as tracing

from exporters import ROUTES
from exporters.base import (
    Description,
    Exported,
    Exporter,
    ExportOptions,
    Route,
    StoredTensor,
    TensorReader,
)
from exporters.torch_program import precision_of
from models.torch.compiler import INSTALL, missing_compiler
from models.torch.example import explained, traced
from models.torch.package import WRAPPER, Constant, Package, cpu_features, read_package
from toolkit.core.artifact import Artifact
from toolkit.core.errors import SourceError, UnavailableError
from toolkit.core.temporary import scratch_directory

ENTRY = "model.pt2"
# Inductor shares the work of a kernel among threads if it is enough at the batch that it is shown.
USUAL_BATCH = 64
# Weights stay as they are: freezing packs them into layouts that nobody can read back.
CONFIG: Mapping[str, Any] = {
    "freezing": False,
    "always_keep_tensor_constants": True,  # else those of eight numbers are written into the code
    "joint_graph_constant_folding": False,  # else expressions of scalars become numbers in the code
    "cpp.dynamic_threads": True,  # else the number of this process is compiled in
    "aot_inductor.check_lowerbound": False,  # a batch of one is right, see _compile
    "aot_inductor.enable_line_tables": False,  # they are paths, and triple the size
    "aot_inductor.precompile_headers": False,  # 6 s for the first export to save 2 in others
}
SOURCES = (".kernel.cpp", ".kernel_metadata.json")  # which nothing needs to run or to read it
COMMANDS = b"\n// Compile cmd\n"  # and to the end: they name paths of this machine
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
WORD = re.compile(r"[A-Za-z_]\w*")
START, END = "_binary_constants_bin_start", "_binary_constants_bin_end"


@final
class TorchAotInductor(Exporter):
    """Compiled for the CPU that it is exported on; any batch. Runs without a compiler."""

    route: ClassVar[Route] = ROUTES["aotinductor"]

    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        """As Exporter.export; raises UnavailableError where there is no C++ compiler."""
        if reason := missing_compiler():
            raise UnavailableError(f"{reason}.", hint=INSTALL)
        with (
            explained(source.path),
            _quiet(),
            scratch_directory() as scratch,
        ):
            program = traced(source, batch=USUAL_BATCH)
            built = _compile(program, scratch)
            _repack(built, directory / ENTRY, hidden=[scratch, _site_packages()])
        return Exported(
            entry=ENTRY,
            precision=precision_of(program),
            options={
                "exporter": "aotinductor",
                "torch": torch.__version__,
                "cpu_features": cpu_features(),
            },
        )


@final
class AotInductorTensors(TensorReader):
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        package = read_package(path)
        constants = package.constants()
        blob = _embedded(package)
        # The assembler is given one byte where there is nothing to store.
        if sum(constant.size_bytes for constant in constants) != len(blob) and constants:
            package.refuse(
                f"{len(blob)} bytes of constants are in its library, and "
                f"{sum(c.size_bytes for c in constants)} in its table"
            )
        readers = _readers(package, constants)
        found, start = [], 0
        for constant in constants:
            part = blob[start : start + constant.size_bytes]
            start += constant.size_bytes
            found.append(
                StoredTensor(
                    name=constant.name,
                    array=_tensor(package, constant, part),
                    readers=readers[constant.variable],
                )
            )
        return found

    def operators(self, path: Path) -> Mapping[str, int]:
        return Counter(name for name, _ in read_package(path).calls() if name is not None)

    def describe(self, path: Path) -> Description:
        raise SourceError(
            f"{path} is compiled code, which cannot be opened without trusting it, and says "
            "nothing of its inputs.",
            hint="Export the model here, with `toolkit export --to aotinductor`.",
        )


def _compile(program: ExportedProgram, scratch: Path) -> Path:
    """Return the package as torch writes it, in `scratch`; elsewhere only its checks of the CPU.

    Two exports that share torch's cache would write libraries of one name, so it has none.
    """
    package = scratch / ENTRY
    # Torch compiles checks of the CPU once for each cache: here in its usual one, so that the fresh
    # cache below does not need them again.
    pick_vec_isa()
    # Torch asks whether the batch is 16 or more, to choose a convolution, and would take what it is
    # in the example for granted at every batch; this has it answer for any. torch.onnx does so too.
    with (
        tracing.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]  # made on import
        fresh_cache(dir=str(scratch)),
    ):
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(package), inductor_configs=dict(CONFIG)
        )
    return package


def _repack(built: Path, path: Path, *, hidden: Sequence[Path]) -> None:
    """Writes a package again, without the C++ that is not needed and the paths of this machine.

    The library has them as text, in the messages of its errors: there they keep their length.
    """
    with zipfile.ZipFile(built) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if name.endswith(SOURCES):
                continue
            content = old.read(name)
            if name.endswith(WRAPPER):
                content = content.partition(COMMANDS)[0] + b"\n"
            for place in hidden:
                root = str(place).encode()
                content = content.replace(root + b"/", b"." + b"/" * len(root))
            new.writestr(zipfile.ZipInfo(name), content)


def _site_packages() -> Path:
    """Where torch is, and so its headers."""
    return Path(torch.__file__).parent.parent


def _embedded(package: Package) -> bytes:
    """The constants' bytes in the library, between two of its symbols. See `_compile_consts` in
    torch/_inductor/codecache.py."""
    try:
        elf = ELFFile(io.BytesIO(package.library))
        machine = elf["e_machine"]
        symbols = elf.get_section_by_name(".dynsym")
        start, end = (
            symbols.get_symbol_by_name(name)[0]["st_value"]  # type: ignore[union-attr]
            for name in (START, END)
        )
        segments = [s for s in elf.iter_segments("PT_LOAD") if s["p_vaddr"] <= start]
        held = max(segments, key=lambda segment: segment["p_vaddr"])
        place = start - held["p_vaddr"]
        blob = held.data()[place : place + end - start]
    except Exception as error:  # elftools raises whatever its parts raise
        package.refuse(f"its library cannot be read: {type(error).__name__}: {error}")
    if machine != MACHINES.get(package.metadata.get("AOTI_MACHINE", "")):
        package.refuse(f"its library is {machine}, not what it says that it was compiled for")
    if len(blob) != end - start:
        package.refuse("its library ends within the constants")
    return blob


def _tensor(package: Package, constant: Constant, part: bytes) -> np.ndarray:
    """A constant in C order, from the bytes of its storage."""
    try:
        dtype = np.dtype(constant.dtype)
        if int(np.prod(constant.shape, dtype=object)) * dtype.itemsize > len(part):
            raise ValueError("it is larger than its bytes")
        return np.ndarray(
            constant.shape,
            dtype,
            part,
            constant.offset * dtype.itemsize,
            [step * dtype.itemsize for step in constant.stride],
        ).copy(order="C")
    except (TypeError, ValueError, OverflowError) as error:
        package.refuse(f"its constant {constant.name} cannot be read: {error}")


def _readers(package: Package, constants: Sequence[Constant]) -> dict[str, tuple[str, ...]]:
    """For each constant's variable the calls that read it, one for each statement."""
    found: dict[str, list[str]] = {constant.variable: [] for constant in constants}
    for number, (name, line) in enumerate(package.calls()):
        for word in set(WORD.findall(line)) & found.keys():
            found[word].append(f"{name or 'view'} ({number})")
    return {variable: tuple(calls) for variable, calls in found.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch's remarks on its own insides from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
