"""PyTorch on an NVIDIA GPU with torch.compile: Inductor, with kernels in Triton."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import ClassVar, final

from models.torch.compiler import INSTALL, missing_compiler
from models.torch.program import module_of
from runtimes.torch.accelerator import Cuda
from runtimes.torch.compile import compiler
from runtimes.torch.cuda import install_command, open_on, parse, probe_torch, require
from toolkit.core.artifact import Artifact, Format
from toolkit.core.session import Availability, Runtime, Session, SessionOptions


@final
class TorchCompileCuda(Runtime):
    """Runtime that compiles for new input shapes, in a first pass that takes seconds."""

    name: ClassVar[str] = "torch-compile-cuda"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.CHECKPOINT})
    device: ClassVar[str] = Cuda.device

    def probe(self) -> Availability:
        found = probe_torch()
        if not found.ok:
            return found
        if importlib.util.find_spec("triton") is None:
            missing = "the package triton is not installed"
            return replace(found, ok=False, reason=missing, hint=install_command())
        if reason := missing_compiler():
            return replace(found, ok=False, reason=reason, hint=INSTALL)
        return found

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        options.require_optimize(self.name)
        require(self)
        given = parse(options)
        program = compiler(self.name, given.others)
        return open_on(
            Cuda,
            artifact,
            module_of(artifact),
            runtime=self.name,
            options=given,
            runs=program.compile,
            details=program.details,
            generated=program.kernels,
        )
