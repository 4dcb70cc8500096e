"""PyTorch on the CPU with torch.compile, and Inductor's setup, which the GPU runtime shares."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, final

import torch
from torch import nn
from torch._dynamo import config as dynamo
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from torch._inductor.codecache import PyCodeCache

from models.torch.compiler import INSTALL, missing_compiler
from models.torch.program import module_of
from runtimes.operator_trace import Node
from runtimes.torch.kernels import kernel_node, triton_nodes
from runtimes.torch.session import TorchSession, dtypes_of
from toolkit.core.artifact import Artifact, Format
from toolkit.core.documents import Json
from toolkit.core.session import Availability, Runtime, Session, SessionOptions, parse_value


@final
class TorchCompile(Runtime):
    """Runtime that compiles for new input shapes, in a first pass that takes seconds."""

    name: ClassVar[str] = "torch-compile"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.CHECKPOINT})

    def probe(self) -> Availability:
        if reason := missing_compiler():
            return Availability(ok=False, version=torch.__version__, reason=reason, hint=INSTALL)
        return Availability(ok=True, version=torch.__version__)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        options.require_optimize(self.name)
        program = compiler(self.name, options)
        module = module_of(artifact)
        return TorchSession(
            artifact.signature,
            program.compile(module),
            runtime=self.name,
            options=options,
            dtypes=dtypes_of(module),
            details=program.details,
            generated=program.kernels,
        )


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """Inductor as set up for a session: `compile` compiles a module.

    `kernels` returns the kernels generated since the setup. `details` returns settings, and counts
    of everything that the process has compiled.
    """

    compile: Callable[[nn.Module], Callable[..., Any]]
    details: Callable[[], Json]
    kernels: Callable[[], list[Node]]


def compiler(runtime: str, options: SessionOptions) -> Compiler:
    """Set up Inductor for a session, with weights frozen into the code, and return its compiler.

    Raise UnknownNameError if Inductor does not have an option, and UsageError for a wrong value.
    """
    tuning = _parse(runtime, options)
    inductor.freezing = True
    # Each session of a process compiles the same code again; dynamo's default limit is 8.
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit
    torch.compiler.reset()
    loaded = len(PyCodeCache.modules)
    return Compiler(
        compile=partial(torch.compile, dynamic=False, fullgraph=True, options=tuning),
        details=_details,
        kernels=lambda: _kernels(PyCodeCache.modules[loaded:]),
    )


def _parse(runtime: str, options: SessionOptions) -> dict[str, Any]:
    """Return Inductor's options (torch._inductor.config), each with the type of its default."""
    defaults = inductor.get_config_copy()
    options.require_known(runtime, defaults)
    return {
        name: parse_value(name, text, type(defaults[name])) for name, text in options.tuning.items()
    }


def _details() -> Json:
    """Return settings, and how many graphs were compiled and graph breaks made in this process."""
    return {
        "backend": "inductor",
        "freezing": inductor.freezing,
        "compiled_graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
    }


KERNEL = re.compile(r"^(\w+) = async_compile\.cpp_pybinding\(\[(.*?)\]", re.MULTILINE)


def _kernels(modules: Sequence[ModuleType]) -> list[Node]:
    """Return the kernels in the code that Inductor generated: C++ for the CPU, Triton for a GPU.

    Their dtypes are known from the types of their arguments. Calls of libraries between kernels,
    such as mkl::_mkl_linear, are in PyTorch's trace of a pass instead.
    """
    codes = [Path(module.__file__).read_text() for module in modules if module.__file__]
    found = [
        node
        for code in codes
        for node in (
            *(kernel_node(*kernel) for kernel in KERNEL.findall(code)),
            *triton_nodes(code),
        )
    ]
    return list(dict.fromkeys(found))
