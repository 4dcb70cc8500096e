"""Trainer for torch: its modes, and the session of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import numpy as np
import torch

import models
from models.torch.base import TorchBuilder
from models.torch.program import write_program
from toolkit.core.errors import UsageError, unknown_name
from toolkit.core.session import Availability
from toolkit.core.specs import ModelSpec
from toolkit.trainers.base import Job, Trainer, TrainingSession
from toolkit.trainers.torch_compiled import CompiledSession
from toolkit.trainers.torch_eager import EagerSession
from toolkit.trainers.torch_model import OwnBuilder
from toolkit.trainers.torch_shared import SharedSession

COMPILED = {
    "compile": None,
    "compile:reduce-overhead": "reduce-overhead",
    "compile:max-autotune": "max-autotune",
}


@final
class TorchTrainer(Trainer):
    """Trainer for torch. All modes compute the same steps, and differ in how they run them."""

    framework: ClassVar[str] = "torch"
    modes: ClassVar[Mapping[str, str]] = {
        "eager": "a DataLoader, and each operator of a step by itself",
        "compile": "a whole step in one compiled function, data in memory",
        "compile:reduce-overhead": "the same with CUDA graphs, where there is CUDA",
        "compile:max-autotune": "the same with kernels chosen by trying them",
        "fused": "several steps in one compiled function, data in memory",
    }
    shared: ClassVar[frozenset[str]] = frozenset({"eager"})

    def probe(self) -> Availability:
        return Availability(ok=True, version=torch.__version__)

    def shapes(self, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
        with torch.device("meta"):
            module = models.build(spec, "torch")
        return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}

    def own_weights(self, module: Callable[[], Any], seed: int) -> dict[str, np.ndarray]:
        torch.manual_seed(seed)
        made = module()
        if not isinstance(made, torch.nn.Module):
            raise UsageError(
                f"The callable gave a {type(made).__module__}.{type(made).__qualname__}, expected "
                "a torch.nn.Module.",
                hint="Return a module, or give the --framework of what it returns.",
            )
        return OwnBuilder(module).weights(made)

    def program(self, job: Job) -> bytes | None:
        if job.module is None:
            return None
        try:
            return write_program(job.module(), torch.from_numpy(job.train.inputs[:2].copy()))
        except Exception as error:  # torch.export also passes on errors of the module
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(
                f"torch.export cannot follow {job.spec.name}: {type(error).__name__}: {reason}",
                hint="The checkpoint can be trained on, but not verified, measured or exported.",
            ) from error

    def open(self, job: Job) -> TrainingSession:
        if job.mode not in self.modes:
            raise unknown_name("training mode of torch", job.mode, self.modes)
        if job.settings.processes > 1:
            return SharedSession(job)
        builder = OwnBuilder(job.module) if job.module else models.builder(job.spec, "torch")
        assert isinstance(builder, TorchBuilder)
        if job.mode == "eager":
            return EagerSession(job, builder)
        most = 1 if job.mode in COMPILED else None
        return CompiledSession(job, builder, most_steps=most, mode=COMPILED.get(job.mode))
