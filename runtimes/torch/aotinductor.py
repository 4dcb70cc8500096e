"""PyTorch's AOTInductor, for packages that were compiled beforehand and run without a compiler."""

from __future__ import annotations

import json
import platform
from typing import ClassVar, final

import torch
from torch._C._aoti import AOTIModelPackageLoader

from models.torch.package import LIBRARY, METADATA, Package, cpu_features, read_package
from runtimes.operator_trace import Node
from runtimes.torch.kernels import kernel_node
from runtimes.torch.session import TorchSession
from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import SourceError
from toolkit.core.files import wrapping_os_errors
from toolkit.core.session import Availability, Runtime, Session, SessionOptions
from toolkit.core.temporary import scratch_directory

MODEL = "model"  # torch's default name for a model


@final
class AotInductor(Runtime):
    """Runtime for machine code in the artifact, whose author has to be trusted."""

    name: ClassVar[str] = "aotinductor"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.AOTINDUCTOR})

    def probe(self) -> Availability:
        return Availability(ok=True, version=torch.__version__)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        options.require_optimize(self.name)
        options.require_known(self.name, ())
        artifact.verify()
        package = read_package(artifact.path)
        _require_this_machine(artifact, package)
        loader = _load(package)
        nodes = _nodes(package)
        return TorchSession(
            artifact.signature,
            lambda *inputs: loader.boxed_run(list(inputs)),
            runtime=self.name,
            options=options,
            dtypes=_floats(package),
            details=lambda: {"compiled_for": dict(package.metadata)},
            generated=lambda: nodes,
        )


def _load(package: Package) -> AOTIModelPackageLoader:
    """Return a loader of the package's library, which is unpacked to disk only until it is mapped.

    If the loader unpacked the package itself, its directory would stay behind whenever a process
    ends without freeing the loader. torch._inductor.aoti_load_package needs a C++ compiler to
    identify the CPU, and its module parses a description of the inputs at every pass. Raise
    SourceError if the library cannot be loaded.
    """
    with scratch_directory() as place:
        directory = place / "data" / "aotinductor" / MODEL
        with wrapping_os_errors(f"unpack {package.path}"):
            directory.mkdir(parents=True)
            (directory / f"{MODEL}{LIBRARY}").write_bytes(package.library)
            (directory / f"{MODEL}{METADATA}").write_text(json.dumps(package.metadata))
        try:
            # Locks are off: a session runs one pass at a time, and has a loader of its own.
            return AOTIModelPackageLoader(str(place), MODEL, True, 1, -1)
        except RuntimeError as error:
            raise SourceError(
                f"torch {torch.__version__} could not load {package.path}: "
                f"{str(error).splitlines()[0]}",
                hint="Export the model again, with the torch that is installed here.",
            ) from error


def _nodes(package: Package) -> list[Node]:
    """Return the generated kernels, and the calls of torch's CPU kernels past the dispatcher.

    PyTorch's trace of a pass shows neither.
    """
    calls = package.calls_with_out()
    return [
        *(kernel_node(*kernel) for kernel in package.kernels().items()),
        *(
            Node(name=f"{name} {number}", operator=f"aten::{name}", provider="cpu", dtype=dtype)
            for number, (name, dtype) in enumerate(calls)
        ),
    ]


def _require_this_machine(artifact: Artifact, package: Package) -> None:
    """Raise SourceError if the code needs another kind of CPU: it would crash on this one."""
    machine = package.metadata.get("AOTI_MACHINE")
    needed = frozenset(artifact.options.get("cpu_features", ()))
    if machine != platform.machine():
        lacking = f"{machine}, and this is {platform.machine()}"
    elif missing := needed.difference(cpu_features()):
        lacking = f"a CPU with {', '.join(sorted(missing))}, which this one has not"
    else:
        return
    raise SourceError(
        f"{artifact.path} was compiled for {lacking}.",
        hint="Export the model again on this machine.",
    )


def _floats(package: Package) -> list[str]:
    """Return the floating-point dtypes of the package's constants."""
    dtypes = {constant.dtype for constant in package.constants()}
    return sorted(dtype for dtype in dtypes if "float" in dtype)
