"""Training loops in torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch.nn import functional as F

import models
from toolkit.core.errors import UsageError
from toolkit.core.session import Availability
from toolkit.core.specs import ModelSpec, TaskKind
from toolkit.training.base import Epoch, EpochRun, Job, Trainer, TrainingSession


@final
class TorchTrainer(Trainer):
    """The modes are all of one mathematics; what differs is who drives the steps."""

    framework: ClassVar[str] = "torch"
    modes: ClassVar[Mapping[str, str]] = {"eager": "a step at a time, each operator by itself"}

    def probe(self) -> Availability:
        return Availability(ok=True, version=torch.__version__)

    def shapes(self, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
        with torch.device("meta"):
            module = models.build(spec, "torch")
        return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}

    def open(self, job: Job) -> TrainingSession:
        if job.mode not in self.modes:
            raise UsageError(
                f"torch has no training mode {job.mode!r}.",
                hint=f"Choose {' or '.join(self.modes)}.",
            )
        return TorchSession(job)


@final
class TorchSession(TrainingSession):
    def __init__(self, job: Job) -> None:
        recipe = job.recipe
        self._job = job
        self._builder = models.builder(job.spec, "torch")
        self._module: torch.nn.Module = self._builder.build(job.spec)
        self._builder.restore(self._module, job.weights)
        self._optimizer = torch.optim.SGD(
            self._module.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )

    def run_epoch(self, epoch: Epoch) -> EpochRun:
        torch.manual_seed(epoch.draw)
        self._module.train()
        losses, metric = [], torch.zeros((), dtype=torch.float64)
        for batch, rate in zip(epoch.batches(self._job.train), epoch.rates, strict=True):
            inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
            for group in self._optimizer.param_groups:
                group["lr"] = float(rate)
            self._optimizer.zero_grad(set_to_none=True)
            outputs = self._module(inputs)
            loss = self._loss(outputs, targets)
            loss.backward()
            self._optimizer.step()
            losses.append(loss.detach())
            metric += self._metric_sum(outputs.detach(), targets)
        return EpochRun(losses=torch.stack(losses).numpy(), metric=float(metric) / len(epoch.order))

    def _loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self._is_classification:
            return F.cross_entropy(outputs, targets)
        return F.mse_loss(outputs, targets)

    def _metric_sum(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self._is_classification:
            return (outputs.argmax(1) == targets).sum()
        return (outputs - targets).abs().mean(dim=1).sum()

    @property
    def _is_classification(self) -> bool:
        task = self._job.spec.task
        return task is not None and task.kind is TaskKind.CLASSIFICATION

    @torch.inference_mode()
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        self._module.eval()
        return self._module(torch.from_numpy(inputs)).numpy()

    def weights(self) -> dict[str, np.ndarray]:
        return self._builder.weights(self._module)

    def state(self) -> dict[str, np.ndarray]:
        found = {f"model/{name}": array for name, array in self.weights().items()}
        for index, slots in self._optimizer.state_dict()["state"].items():
            for name, value in slots.items():
                if value is not None:
                    found[f"optimizer/{index}/{name}"] = np.array(torch.as_tensor(value))
        return found

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        model: dict[str, np.ndarray] = {}
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for name, array in state.items():
            part, _, rest = name.partition("/")
            if part == "model":
                model[rest] = array
            else:
                index, _, slot = rest.partition("/")
                slots.setdefault(int(index), {})[slot] = torch.from_numpy(array.copy())
        self._builder.restore(self._module, model)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": slots, "param_groups": groups})

    def provenance(self) -> dict[str, Any]:
        return {"version": torch.__version__, "threads": torch.get_num_threads()}
