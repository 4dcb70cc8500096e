"""Trainer and training loops for JAX, with Flax modules."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import flax
import jax
import jax.numpy as jnp
import numpy as np

import models
from models.flax.base import FlaxModel
from toolkit.core.errors import UnavailableError, UsageError, unknown_name
from toolkit.core.session import Availability
from toolkit.core.specs import ModelSpec, TaskKind
from toolkit.trainers import formula
from toolkit.trainers.base import Epoch, EpochRun, Job, Settings, Trainer, TrainingSession
from toolkit.trainers.rows import Rows, channels_last

Carry = tuple[Any, Any, list[tuple[jax.Array, ...]]]
"""Parameters, running statistics, and the optimizer's slots for each parameter."""

DEVICES = {"cpu": "cpu", "cuda": "gpu"}


@final
class JaxTrainer(Trainer):
    """Trainer for JAX. Both modes compute the same steps, and differ in how they run them."""

    framework: ClassVar[str] = "jax"
    modes: ClassVar[Mapping[str, str]] = {
        "jit": "a step as an XLA program: jax.jit",
        "scan": "an epoch as one XLA program, the data in memory: jax.lax.scan",
    }

    def probe(self) -> Availability:
        return Availability(ok=True, version=jax.__version__)

    def start(self, settings: Settings) -> None:
        if settings.device not in DEVICES:
            raise unknown_name("device of jax", settings.device, DEVICES)
        if settings.device != "cpu":
            # Compute in float32 instead of TF32, and leave GPU memory for other processes.
            jax.config.update("jax_default_matmul_precision", "highest")
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        given = os.environ.get("PJRT_NPROC")
        os.environ["PJRT_NPROC"] = str(settings.threads)
        try:
            threads = _threads()
        finally:
            os.environ.pop("PJRT_NPROC")
            if given is not None:
                os.environ["PJRT_NPROC"] = given
        if threads not in (None, settings.threads):
            raise UnavailableError(
                f"JAX runs with {threads} threads in this process, which cannot be changed to "
                f"{settings.threads}.",
                hint="Train in a separate process, or with the same number of threads.",
            )
        try:
            jax.devices(DEVICES[settings.device])
        except RuntimeError as error:
            raise UnavailableError(
                f"JAX finds no {DEVICES[settings.device]} here: {error}.",
                hint="Give --device cpu, or install a JAX and a driver for the GPU.",
            ) from error

    def shapes(self, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
        builder = models.builder(spec, "jax")
        weights = builder.weights(builder.build(spec))
        return {name: array.shape for name, array in weights.items()}

    def own_weights(self, module: Callable[[], Any], seed: int) -> dict[str, np.ndarray]:
        """Raise UsageError: user modules are not supported."""
        raise _not_own()

    def open(self, job: Job) -> TrainingSession:
        if job.mode not in self.modes:
            raise unknown_name("training mode of jax", job.mode, self.modes)
        if job.module is not None:
            raise _not_own()
        self.start(job.settings)
        return JaxSession(job, jax.devices(DEVICES[job.settings.device])[0])


def _not_own() -> UsageError:
    return UsageError(
        "JAX trains only the models of this toolkit, not user modules.",
        hint="Give a torch or Keras factory, or one of: toolkit models.",
    )


@functools.cache
def _threads() -> int | None:
    """Start XLA, and return the number of threads in its pool.

    The result is None if they cannot be counted: not on Linux, or if JAX had already started.
    """
    before = _pool()
    jax.devices("cpu")
    return (_pool() - before) or None


def _pool() -> int:
    found = 0
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += path.read_text().strip() == "tf_XLAEigen"
    return found


@final
class JaxSession(TrainingSession):
    def __init__(self, job: Job, device: jax.Device) -> None:
        self._job = job
        self._device = device
        self._builder = models.builder(job.spec, "jax")
        self._model: FlaxModel = self._builder.build(job.spec)
        self._builder.restore(self._model, job.weights)
        self._rows = Rows(job.train, turned=True)
        self._held: tuple[jax.Array, jax.Array] | None = None
        self._done = 0
        names = formula.slots(job.recipe)
        leaves = jax.tree.leaves(self._model.variables["params"])
        self._slots = [tuple(jnp.zeros_like(leaf) for _ in names) for leaf in leaves]
        self._step = jax.jit(self._take, donate_argnums=0)
        self._epoch = jax.jit(self._scan, static_argnums=5, donate_argnums=0)
        self._forward = jax.jit(self._model.module.apply)
        self._largest = 0

    def run_epoch(self, epoch: Epoch) -> EpochRun:
        scales = formula.scales(self._job.recipe, self._done, epoch.rates)
        with jax.default_device(self._device):
            run = self._run_epoch if self._job.mode == "scan" else self._run_steps
            carry, losses, metrics = run(self._carry(), epoch, scales)
        self._keep(carry)
        self._done += epoch.steps
        metric = np.asarray(metrics).sum(dtype=np.float64) / len(epoch.order)
        return EpochRun(losses=np.array(losses), metric=float(metric))

    def _run_steps(self, carry: Carry, epoch: Epoch, scales: np.ndarray) -> tuple[Carry, Any, Any]:
        ran = []
        for batch, scale in zip(self._rows.batches(epoch), scales, strict=True):
            carry, values = self._step(carry, batch.inputs, batch.targets, scale)
            ran.append(values)
        losses, metrics = zip(*ran, strict=True)
        return carry, jnp.stack(losses), jnp.stack(metrics)

    def _run_epoch(self, carry: Carry, epoch: Epoch, scales: np.ndarray) -> tuple[Carry, Any, Any]:
        rows, order = self._rows.whole(epoch)
        if self._held is None or epoch.augmentation:
            self._held = jnp.asarray(rows.inputs), jnp.asarray(rows.targets)
        carry, (losses, metrics) = self._epoch(carry, *self._held, order, scales, epoch.batch)
        return carry, losses, metrics

    def _scan(
        self, carry: Carry, inputs: Any, targets: Any, order: Any, scales: Any, batch: int
    ) -> tuple[Carry, tuple[Any, Any]]:
        """Run all steps of an epoch: the full batches in a loop, then the smaller one."""
        full = len(order) // batch

        def body(carry: Carry, step: tuple[Any, Any]) -> tuple[Carry, tuple[Any, Any]]:
            rows, scale = step
            return self._take(carry, inputs[rows], targets[rows], scale)

        batches = order[: full * batch].reshape(full, batch)
        carry, (losses, metrics) = jax.lax.scan(body, carry, (batches, scales[:full]))
        if full < len(scales):
            carry, (loss, metric) = body(carry, (order[full * batch :], scales[full]))
            losses, metrics = jnp.append(losses, loss), jnp.append(metrics, metric)
        return carry, (losses, metrics)

    def _take(
        self, carry: Carry, inputs: Any, targets: Any, scale: Any
    ) -> tuple[Carry, tuple[Any, Any]]:
        """Run one training step; return the loss and the metric sum from before its update."""
        params, statistics, slots = carry

        def objective(params: Any) -> tuple[Any, tuple[Any, Any]]:
            outputs, moved = self._model.module.apply(
                {"params": params, **statistics}, inputs, train=True, mutable=["batch_stats"]
            )
            return self._loss(outputs, targets), (outputs, moved)

        (loss, (outputs, moved)), gradients = jax.value_and_grad(objective, has_aux=True)(params)
        leaves, tree = jax.tree.flatten(params)
        updated = [
            formula.update(self._job.recipe, leaf, gradient, kept, scale, jnp.sqrt)
            for leaf, gradient, kept in zip(leaves, jax.tree.leaves(gradients), slots, strict=True)
        ]
        after = jax.tree.unflatten(tree, [leaf for leaf, _ in updated])
        metric = self._metric(outputs, targets)
        return (after, dict(moved), [kept for _, kept in updated]), (loss, metric)

    def _loss(self, outputs: Any, targets: Any) -> Any:
        """Return the mean cross-entropy of logits, or the mean squared error, of a batch."""
        if self._is_classification:
            logs = jax.nn.log_softmax(outputs)
            return -jnp.take_along_axis(logs, targets[:, None], axis=1).mean()
        return jnp.square(outputs - targets).mean()

    def _metric(self, outputs: Any, targets: Any) -> Any:
        """Return the number of correct samples, or the sum of mean absolute errors, float32."""
        if self._is_classification:
            return (outputs.argmax(axis=1) == targets).sum(dtype=jnp.float32)
        return jnp.abs(outputs - targets).mean(axis=1).sum()

    @property
    def _is_classification(self) -> bool:
        task = self._job.spec.task
        return task is not None and task.kind is TaskKind.CLASSIFICATION

    def _carry(self) -> Carry:
        variables = dict(self._model.variables)
        return variables.pop("params"), variables, self._slots

    def _keep(self, carry: Carry) -> None:
        params, statistics, self._slots = carry
        self._model.variables = {"params": params, **statistics}

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        # Pad a smaller batch with zeros, since each new shape is compiled again.
        count = len(inputs)
        self._largest = max(self._largest, count)
        rows = channels_last(inputs)
        filled = np.pad(rows, [(0, self._largest - count), *[(0, 0)] * (rows.ndim - 1)])
        with jax.default_device(self._device):
            return np.array(self._forward(self._model.variables, filled)[:count])

    def weights(self) -> dict[str, np.ndarray]:
        return self._builder.weights(self._model)

    def state(self) -> dict[str, np.ndarray]:
        found = {f"model/{name}": array for name, array in self.weights().items()}
        found["done"] = np.array(self._done)
        for index, kept in enumerate(self._slots):
            for slot, value in zip(formula.slots(self._job.recipe), kept, strict=True):
                found[f"{slot}/{index}"] = np.array(value)
        return found

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        model = {name[6:]: array for name, array in state.items() if name.startswith("model/")}
        self._builder.restore(self._model, model)
        self._done = int(state["done"])
        names = formula.slots(self._job.recipe)
        self._slots = [
            tuple(jnp.array(state[f"{slot}/{index}"]) for slot in names)
            for index in range(len(self._slots))
        ]

    def provenance(self) -> dict[str, Any]:
        return {
            "version": jax.__version__,
            "flax": flax.__version__,
            "threads": _threads(),
            "device": str(self._device),
            "dtype": "float32",
            "default_matmul_precision": jax.config.jax_default_matmul_precision,
            "compiled_by": "XLA",
            "deterministic": self._device.platform == "cpu",
        }
