"""torch -> .pt2 package of machine code and weights, compiled ahead of time (AOTInductor)."""

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
# Inductor runs a kernel on several threads if the example batch has enough operations for it.
USUAL_BATCH = 64
# Weights stay unchanged: freezing would pack them into layouts that cannot be read back.
CONFIG: Mapping[str, Any] = {
    "freezing": False,
    "always_keep_tensor_constants": True,  # else those of up to 8 numbers become part of the code
    "joint_graph_constant_folding": False,  # else expressions of scalars become numbers in the code
    "cpp.dynamic_threads": True,  # else the thread count of this process is compiled in
    "aot_inductor.check_lowerbound": False,  # a batch of 1 is valid, see _compile
    "aot_inductor.enable_line_tables": False,  # they contain paths, and triple the size
    "aot_inductor.precompile_headers": False,  # costs 6 s in the first export, saves 2 s in others
}
SOURCES = (".kernel.cpp", ".kernel_metadata.json")  # needed neither to run nor to read a package
COMMANDS = b"\n// Compile cmd\n"  # from here to the end, the source contains paths of this machine
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
WORD = re.compile(r"[A-Za-z_]\w*")
START, END = "_binary_constants_bin_start", "_binary_constants_bin_end"


@final
class TorchAotInductor(Exporter):
    """Exporter of code for the CPU that compiles it, for any batch. It runs without a compiler."""

    route: ClassVar[Route] = ROUTES["aotinductor"]

    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        """Export as `Exporter.export`. Raises UnavailableError if there is no C++ compiler."""
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
        # Without constants, the assembler gets one byte.
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
    """Compile a program, and return the package that torch writes to `scratch`.

    Only torch's CPU checks are cached elsewhere. Two exports that share torch's cache would write
    libraries of the same name, so this one gets a fresh cache.
    """
    package = scratch / ENTRY
    # Torch compiles its CPU checks once per cache. Run them with the usual cache, so that the fresh
    # cache below does not need them again.
    pick_vec_isa()
    # Torch checks whether the batch is 16 or more to choose a convolution, and would assume the
    # example's answer for every batch; with this option it does not. torch.onnx sets it too.
    with (
        tracing.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]  # made on import
        fresh_cache(dir=str(scratch)),
    ):
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(package), inductor_configs=dict(CONFIG)
        )
    return package


def _repack(built: Path, path: Path, *, hidden: Sequence[Path]) -> None:
    """Write a package again, without C++ sources that are not needed and paths of this machine.

    The library contains paths as text, in its error messages, where they keep their length.
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
    """Return the folder that contains torch, and so its headers."""
    return Path(torch.__file__).parent.parent


def _embedded(package: Package) -> bytes:
    """Return the bytes of the constants in the library, which are between two of its symbols.

    See `_compile_consts` in torch/_inductor/codecache.py.
    """
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
    except Exception as error:  # elftools may raise any exception
        package.refuse(f"its library cannot be read: {type(error).__name__}: {error}")
    if machine != MACHINES.get(package.metadata.get("AOTI_MACHINE", "")):
        package.refuse(f"its library is {machine}, not what it says that it was compiled for")
    if len(blob) != end - start:
        package.refuse("its library ends within the constants")
    return blob


def _tensor(package: Package, constant: Constant, part: bytes) -> np.ndarray:
    """Return a constant in C order, from the bytes of its storage."""
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
    """Return the calls that read each constant, one per statement, by the constant's variable."""
    found: dict[str, list[str]] = {constant.variable: [] for constant in constants}
    for number, (name, line) in enumerate(package.calls()):
        for word in set(WORD.findall(line)) & found.keys():
            found[word].append(f"{name or 'view'} ({number})")
    return {variable: tuple(calls) for variable, calls in found.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide torch's warnings about its own internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
