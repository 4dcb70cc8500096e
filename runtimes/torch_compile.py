"""PyTorch through torch.compile: Inductor, with the weights frozen into the compiled code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, final

import torch
from torch._dynamo import config as dynamo
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from torch._inductor.codecache import PyCodeCache

from models.torch.compiler import INSTALL, missing_compiler
from models.torch.program import module_of
from runtimes.executed import Node
from runtimes.torch_kernels import kernel_node
from runtimes.torch_session import TorchSession, dtypes_of
from toolkit.core.artifact import Artifact, Format
from toolkit.core.documents import Json
from toolkit.core.session import Availability, Runtime, Session, SessionOptions, parse_value


@final
class TorchCompile(Runtime):
    """Compiles for each batch that it meets, in its first pass: that pass takes seconds."""

    name: ClassVar[str] = "torch-compile"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.CHECKPOINT})

    def probe(self) -> Availability:
        if reason := missing_compiler():
            return Availability(ok=False, version=torch.__version__, reason=reason, hint=INSTALL)
        return Availability(ok=True, version=torch.__version__)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        options.require_optimize(self.name)
        tuning = _parse(options)
        inductor.freezing = True
        # Each session of a process compiles the same code for itself; by default 8 of them may.
        dynamo.recompile_limit = dynamo.accumulated_recompile_limit
        module = module_of(artifact)
        torch.compiler.reset()
        loaded = len(PyCodeCache.modules)
        compiled = torch.compile(module, dynamic=False, fullgraph=True, options=tuning)
        return TorchSession(
            artifact.signature,
            compiled,
            runtime=self.name,
            options=options,
            dtypes=dtypes_of(module),
            details=_details,
            generated=lambda: _kernels(PyCodeCache.modules[loaded:]),
        )


def _parse(options: SessionOptions) -> dict[str, Any]:
    """Inductor's own options (torch._inductor.config), each as the type of its default."""
    defaults = inductor.get_config_copy()
    options.require_known("torch-compile", defaults)
    return {
        name: parse_value(name, text, type(defaults[name])) for name, text in options.tuning.items()
    }


def _details() -> Json:
    """How many graphs were compiled, and how often the compiler gave up on a part."""
    return {
        "backend": "inductor",
        "freezing": inductor.freezing,
        "compiled_graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
    }


KERNEL = re.compile(r"^(\w+) = async_compile\.cpp_pybinding\(\[(.*?)\]", re.MULTILINE)


def _kernels(modules: Sequence[ModuleType]) -> list[Node]:
    """The C++ kernels in the code that Inductor generated, by the types of their arguments.

    The trace of a pass shows the library calls between them, such as mkl::_mkl_linear.
    """
    codes = [Path(module.__file__).read_text() for module in modules if module.__file__]
    found = (kernel for code in codes for kernel in KERNEL.findall(code))
    return list(dict.fromkeys(kernel_node(name, arguments) for name, arguments in found))
