"""Trainer for TensorFlow: its modes, and the session of each."""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import keras
import numpy as np
import tensorflow as tf

import models
from models.keras.base import by_path
from toolkit.core.errors import UnavailableError, unknown_name
from toolkit.core.session import Availability
from toolkit.core.specs import ModelSpec
from toolkit.trainers import formula
from toolkit.trainers.base import Epoch, EpochRun, Job, Settings, Trainer, TrainingSession
from toolkit.trainers.rows import Rows
from toolkit.trainers.tensorflow_model import Net, own_model

DEVICES = {"cpu": "CPU", "cuda": "GPU"}


@final
class TensorFlowTrainer(Trainer):
    """Trainer for TensorFlow. All modes compute the same steps, and differ in how they run them."""

    framework: ClassVar[str] = "tensorflow"
    modes: ClassVar[Mapping[str, str]] = {
        "fit": "keras.Model.fit, an epoch a call",
        "eager": "a GradientTape a step, each operator by itself",
        "function": "a step as a graph: tf.function",
        "xla": "a step as a program: tf.function with jit_compile",
        "epoch": "an epoch as one XLA program, the data in memory",
    }

    def probe(self) -> Availability:
        return Availability(ok=True, version=tf.__version__)

    def start(self, settings: Settings) -> None:
        if settings.device not in DEVICES:
            raise unknown_name("device of tensorflow", settings.device, DEVICES)
        if not tf.config.list_physical_devices(DEVICES[settings.device]):
            raise UnavailableError(
                f"TensorFlow finds no {DEVICES[settings.device]} here.",
                hint="Give --device cpu, or install a TensorFlow and a driver for the GPU.",
            )
        with contextlib.suppress(RuntimeError):  # TensorFlow has already started
            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)  # leave memory for others
        if _threads() != settings.threads:
            with contextlib.suppress(RuntimeError):  # TensorFlow has already started
                tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
        if _threads() != settings.threads:
            raise UnavailableError(
                f"TensorFlow runs with {_threads()} threads in this process, which cannot be "
                f"changed to {settings.threads}.",
                hint="Train in a separate process, or with the same number of threads.",
            )
        tf.config.experimental.enable_tensor_float_32_execution(False)  # no TF32
        if settings.deterministic:
            tf.config.experimental.enable_op_determinism()

    def shapes(self, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
        builder = models.builder(spec, "tensorflow")
        weights = builder.weights(builder.build(spec))
        return {name: array.shape for name, array in weights.items()}

    def own_weights(self, module: Callable[[], Any], seed: int) -> dict[str, np.ndarray]:
        """Return the initial weights of a user's model, by the paths of its variables.

        Raises UsageError if `module` does not return a Keras model, or two variables have the same
        path.
        """
        keras.utils.set_random_seed(seed % 2**32)
        return by_path(own_model(module))

    def open(self, job: Job) -> TrainingSession:
        if job.mode not in self.modes:
            raise unknown_name("training mode of tensorflow", job.mode, self.modes)
        self.start(job.settings)
        with _device(job.settings.device):
            return SESSIONS[job.mode](job)


def _threads() -> int:
    """Return the number of threads per operator. TensorFlow reports 0 for all processors."""
    return tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1


def _device(name: str) -> Any:
    return tf.device(f"/{DEVICES[name]}:0")


class TensorFlowSession(TrainingSession):
    """Base class of the sessions: the model, the optimizer's slots, and the step count."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._net = Net(job)
        self._rows = Rows(job.train, turned=self._net.turned)
        self._parameters = [variable.value for variable in self._net.parameters]
        names = formula.slots(job.recipe)
        self._slots = [[tf.Variable(tf.zeros_like(p)) for _ in names] for p in self._parameters]
        self._done = 0
        self._forward = tf.function(
            lambda inputs: self._net.model(inputs, training=False), reduce_retracing=True
        )

    @abstractmethod
    def _run(self, epoch: Epoch, scales: np.ndarray) -> tuple[Any, Any]:
        """Train for one epoch; return the loss and the metric sum of each step, tensors [steps]."""

    @final
    def run_epoch(self, epoch: Epoch) -> EpochRun:
        self._net.reseed(epoch.draw)
        scales = formula.scales(self._job.recipe, self._done, epoch.rates)
        with _device(self._job.settings.device):
            losses, metrics = self._run(epoch, scales)
        self._done += epoch.steps
        metric = metrics.numpy().sum(dtype=np.float64) / len(epoch.order)
        return EpochRun(losses=losses.numpy(), metric=float(metric))

    def _step(self, inputs: Any, targets: Any, scale: Any) -> tuple[Any, Any]:
        """Run one training step; return the loss and the metric sum from before its update."""
        with tf.GradientTape() as tape:
            outputs = self._net.model(inputs, training=True)
            loss = self._net.loss(outputs, targets)
            total = tf.add_n([loss, *self._net.model.losses])  # regularisation of user layers
        gradients = tape.gradient(total, self._parameters)
        for parameter, kept, gradient in zip(self._parameters, self._slots, gradients, strict=True):
            if gradient is not None:  # None: the loss does not depend on the parameter
                self._update(parameter, kept, tf.convert_to_tensor(gradient), scale)
        return loss, self._net.metric(outputs, targets)

    def _update(self, parameter: Any, kept: list[Any], gradient: Any, scale: Any) -> None:
        after, slots = formula.update(self._job.recipe, parameter, gradient, kept, scale, tf.sqrt)
        parameter.assign(after)
        for variable, value in zip(kept, slots, strict=True):
            variable.assign(value)

    @final
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        with _device(self._job.settings.device):
            outputs = self._forward(tf.constant(self._rows.turn(inputs)))
        return np.array(outputs.numpy())

    @final
    def weights(self) -> dict[str, np.ndarray]:
        return self._net.weights()

    @final
    def state(self) -> dict[str, np.ndarray]:
        found = {f"model/{name}": array for name, array in self.weights().items()}
        found["done"] = np.array(self._done)
        for index, kept in enumerate(self._slots):
            for slot, variable in zip(formula.slots(self._job.recipe), kept, strict=True):
                found[f"{slot}/{index}"] = np.array(variable.numpy())
        return found

    @final
    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        model = {name[6:]: array for name, array in state.items() if name.startswith("model/")}
        self._net.restore(model)
        self._done = int(state["done"])
        for index, kept in enumerate(self._slots):
            for slot, variable in zip(formula.slots(self._job.recipe), kept, strict=True):
                variable.assign(state[f"{slot}/{index}"])

    @final
    def provenance(self) -> dict[str, Any]:
        return {
            "version": tf.__version__,
            "keras": keras.__version__,
            "threads": _threads(),
            "device": self._parameters[0].device.rpartition("/device:")[2],
            "dtype": "float32",
            "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
            "compiled_by": COMPILERS.get(self._job.mode),
            "deterministic": self._job.settings.deterministic,
        }


@final
class StepSession(TensorFlowSession):
    """Session that calls each step from Python: eagerly, as a graph, or as an XLA program."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._take: Callable[..., Any] = self._step
        if job.mode != "eager":
            self._take = tf.function(self._step, jit_compile=job.mode == "xla")

    def _run(self, epoch: Epoch, scales: np.ndarray) -> tuple[Any, Any]:
        ran = [
            self._take(tf.constant(batch.inputs), tf.constant(batch.targets), tf.constant(scale))
            for batch, scale in zip(self._rows.batches(epoch), scales, strict=True)
        ]
        losses, metrics = zip(*ran, strict=True)
        return tf.stack(losses), tf.stack(metrics)


@final
class EpochSession(TensorFlowSession):
    """Session that runs an epoch as one XLA program: a loop over full batches, then the rest."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._take = tf.function(self._epoch, jit_compile=True)
        self._held: tuple[Any, Any] | None = None

    def _run(self, epoch: Epoch, scales: np.ndarray) -> tuple[Any, Any]:
        rows, order = self._rows.whole(epoch)
        if self._held is None or epoch.augmentation:
            self._held = tf.constant(rows.inputs), tf.constant(rows.targets)
        return self._take(*self._held, tf.constant(order), tf.constant(scales), epoch.batch)

    def _epoch(
        self, inputs: Any, targets: Any, order: Any, scales: Any, batch: int
    ) -> tuple[Any, Any]:
        full, steps = order.shape[0] // batch, scales.shape[0]
        batches = tf.reshape(order[: full * batch], (full, batch))
        losses, metrics = (tf.TensorArray(tf.float32, steps, element_shape=()) for _ in range(2))

        def take(step: Any, rows: Any, losses: Any, metrics: Any) -> tuple[Any, Any, Any]:
            loss, metric = self._step(
                tf.gather(inputs, rows), tf.gather(targets, rows), scales[step]
            )
            return step + 1, losses.write(step, loss), metrics.write(step, metric)

        _, losses, metrics = tf.while_loop(
            lambda step, *_: step < full,
            lambda step, losses, metrics: take(step, batches[step], losses, metrics),
            (0, losses, metrics),
            maximum_iterations=full,
        )
        if full < steps:
            _, losses, metrics = take(full, order[full * batch :], losses, metrics)
        return losses.stack(), metrics.stack()


@final
class FitSession(TensorFlowSession):
    """Session that calls keras.Model.fit, with RecipeOptimizer as the optimizer."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._optimizer = RecipeOptimizer(self._parameters, self._slots, self._update)
        steps = -(-len(job.train) // job.recipe.batch)
        self._optimizer.scales = tf.Variable(tf.zeros((steps, 2)))
        self._losses, self._metrics = (tf.Variable(tf.zeros(steps)) for _ in range(2))
        self._net.model.compile(optimizer=self._optimizer, loss=self._recorded)

    def _recorded(self, targets: Any, outputs: Any) -> Any:
        """Return the loss, and store loss and metric, since Keras only reports running means."""
        if outputs.shape.rank > len(self._job.train.targets.shape):
            targets = tf.cast(targets, tf.int64)  # Keras converts classes to float32
        loss = self._net.loss(outputs, targets)
        step = self._optimizer.iterations.value
        self._losses.scatter_nd_update([[step]], [loss])
        self._metrics.scatter_nd_update([[step]], [self._net.metric(outputs, targets)])
        return loss

    def _run(self, epoch: Epoch, scales: np.ndarray) -> tuple[Any, Any]:
        rows, order = self._rows.whole(epoch)
        self._optimizer.iterations.assign(0)
        self._optimizer.scales.assign(scales)
        self._net.model.fit(
            rows.inputs[order],
            rows.targets[order],
            batch_size=epoch.batch,
            shuffle=False,
            verbose=0,
        )
        return self._losses, self._metrics


@final
class RecipeOptimizer(keras.optimizers.Optimizer):
    """Keras optimizer that applies the recipe: step k of an epoch uses row k of `scales`."""

    scales: Any

    def __init__(
        self,
        parameters: list[Any],
        slots: list[list[Any]],
        update: Callable[[Any, list[Any], Any, Any], None],
    ) -> None:
        super().__init__(learning_rate=0.0, name="recipe")
        self._kept = {p.ref(): kept for p, kept in zip(parameters, slots, strict=True)}
        self._formula = update

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        scale = self.scales[self.iterations.value]
        self._formula(variable, self._kept[variable.ref()], gradient, scale)


SESSIONS: Mapping[str, Callable[[Job], TrainingSession]] = {
    "fit": FitSession,
    "eager": StepSession,
    "function": StepSession,
    "xla": StepSession,
    "epoch": EpochSession,
}
COMPILERS = {"fit": "tf.function", "function": "tf.function", "xla": "XLA", "epoch": "XLA"}
