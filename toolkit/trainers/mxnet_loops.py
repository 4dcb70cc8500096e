"""Training loops in MXNet 1.9.1, which runs in a separate environment (`make mxnet-env`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import mxnet as mx
import numpy as np
from mxnet import autograd

import models
from models.mxnet.base import parameters
from models.mxnet.norms import correct_variances, variances
from toolkit.core.errors import UsageError
from toolkit.core.session import Availability
from toolkit.core.specs import ModelSpec, TaskKind
from toolkit.trainers.base import Epoch, EpochRun, Job, Trainer, TrainingSession
from toolkit.trainers.mxnet_updates import SLOTS, UPDATES


@final
class MXNetTrainer(Trainer):
    framework: ClassVar[str] = "mxnet"
    modes: ClassVar[Mapping[str, str]] = {
        "gluon": "a step at a time, each operator by itself",
        "hybrid": "a step at a time, the model's passes as one cached graph",
    }

    def probe(self) -> Availability:
        return Availability(ok=True, version=mx.__version__)

    def shapes(self, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
        builder = models.builder(spec, "mxnet")
        return {name: a.shape for name, a in builder.weights(builder.build(spec)).items()}

    def own_weights(self, module: Callable[[], Any], seed: int) -> dict[str, np.ndarray]:
        raise UsageError(
            "mxnet trains models of `toolkit models`, and was given a callable.",
            hint="Train your own model in torch or tensorflow.",
        )

    def open(self, job: Job) -> TrainingSession:
        for what, got, known in (
            ("training mode", job.mode, list(self.modes)),
            ("device", job.settings.device, ["cpu"]),
        ):
            if got not in known:
                raise UsageError(
                    f"mxnet has no {what} {got!r}.", hint=f"Choose {' or '.join(known)}."
                )
        return MXNetSession(job)


@final
class MXNetSession(TrainingSession):
    def __init__(self, job: Job) -> None:
        assert job.spec.task is not None
        self._job = job
        self._is_classification = job.spec.task.kind is TaskKind.CLASSIFICATION
        self._builder = models.builder(job.spec, "mxnet")
        self._module = self._builder.build(job.spec)
        self._builder.restore(self._module, job.weights)
        if job.mode == "hybrid":
            self._module.hybridize(static_alloc=True)
        self._trained = {
            name: parameter
            for name, parameter in parameters(self._module).items()
            if parameter.grad_req != "null"
        }
        self._slots = {
            name: {slot: mx.nd.zeros(parameter.shape) for slot in SLOTS[job.recipe.optimizer]}
            for name, parameter in self._trained.items()
        }
        self._steps = 0

    def run_epoch(self, epoch: Epoch) -> EpochRun:
        mx.random.seed(epoch.draw)
        losses, metric = [], mx.nd.zeros(1, dtype="float64")
        for batch, rate in zip(epoch.batches(self._job.train), epoch.rates, strict=True):
            inputs, targets = mx.nd.array(batch.inputs), mx.nd.array(batch.targets)
            before = variances(self._module)
            with autograd.record():
                outputs = self._module(inputs)
                loss = self._loss(outputs, targets)
            loss.backward()
            correct_variances(self._module, before, len(batch))
            self._update(float(rate))
            losses.append(loss)
            metric += self._metric_sum(outputs, targets).astype("float64")
        return EpochRun(
            losses=mx.nd.concat(*losses, dim=0).asnumpy(),
            metric=float(metric.asscalar()) / len(epoch.order),
        )

    def _update(self, rate: float) -> None:
        recipe = self._job.recipe
        self._steps += 1
        for name, parameter in self._trained.items():
            UPDATES[recipe.optimizer](
                parameter.data(), parameter.grad(), self._slots[name], recipe, rate, self._steps
            )

    def _loss(self, outputs: Any, targets: Any) -> Any:
        """Return the mean cross-entropy of logits, or the mean squared error, of a batch, [1]."""
        if self._is_classification:
            return -mx.nd.pick(mx.nd.log_softmax(outputs), targets).mean()
        return mx.nd.square(outputs - targets).mean()

    def _metric_sum(self, outputs: Any, targets: Any) -> Any:
        if self._is_classification:
            return (outputs.argmax(axis=1) == targets).sum()
        return (outputs - targets).abs().mean(axis=1).sum()

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        outputs: np.ndarray = self._module(mx.nd.array(inputs)).asnumpy()
        return outputs

    def weights(self) -> dict[str, np.ndarray]:
        return self._builder.weights(self._module)

    def state(self) -> dict[str, np.ndarray]:
        found = {f"model/{name}": array for name, array in self.weights().items()}
        for name, slots in self._slots.items():
            for slot, value in slots.items():
                found[f"optimizer/{slot}/{name}"] = value.asnumpy()
        return {**found, "steps": np.array(self._steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._steps = int(state["steps"])
        prefix = "model/"
        self._builder.restore(
            self._module,
            {name[len(prefix) :]: a for name, a in state.items() if name.startswith(prefix)},
        )
        for name, slots in self._slots.items():
            for slot, value in slots.items():
                value[:] = state[f"optimizer/{slot}/{name}"]

    def provenance(self) -> dict[str, Any]:
        return {
            "version": mx.__version__,
            "device": "cpu",
            "dtype": "float32",
            "onednn": mx.runtime.Features().is_enabled("MKLDNN"),
        }
