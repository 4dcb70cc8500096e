"""Interfaces of trainers and training sessions, and the data they take and return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self, final

import numpy as np

from models.base import Weights
from toolkit.core.errors import UsageError
from toolkit.core.session import Availability
from toolkit.core.specs import ModelSpec
from toolkit.data.augment import augmented
from toolkit.data.base import Split
from toolkit.trainers.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Machine settings of a training run.

    They change the trained weights by rounding only, except that with several processes batch norms
    use the statistics of each process's samples.

    `threads` is the number of threads per process. `loader_workers` is the number of processes that
    load data in torch's `eager` mode, 0 for loading in the training process. `deterministic`
    selects bit-reproducible kernels in torch and TensorFlow. `processes` is the number of processes
    that share each batch, in the modes of `Trainer.shared`.
    """

    threads: int
    device: str = "cpu"
    loader_workers: int = 0
    deterministic: bool = False
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that defines a training run: model, mode, recipe, data and machine settings.

    `weights` are the initial weights. `module` is the user's callable that returns a module; the
    weights then have the names of that module. It is None for a model of a family.
    """

    spec: ModelSpec
    mode: str
    recipe: Recipe
    train: Split
    weights: Weights
    settings: Settings
    module: Callable[[], Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Batches of one epoch, the same for all frameworks.

    `order` int64 [N] is the order in which the N samples are used; `rates` float64 [steps] is the
    learning rate of each step. The last batch is smaller if `batch` does not divide N. `number`
    counts from 0. All random numbers of the epoch are derived from `seed` and `number`, so an epoch
    that is repeated after an interruption is the same.
    """

    number: int
    seed: int
    batch: int
    order: np.ndarray
    rates: np.ndarray
    augmentation: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        return len(self.rates)

    @property
    def draw(self) -> int:
        """Seed from 0 to 2**31 - 1 for the framework's generator, as for dropout."""
        return int(np.random.default_rng([self.seed, self.number, 1]).integers(2**31))

    def augmentation_rng(self) -> np.random.Generator:
        """Return a new generator for the augmentation of all batches, in their order."""
        return np.random.default_rng([self.seed, self.number, 2])

    def batches(self, split: Split) -> Iterator[Split]:
        """Yield each batch, gathered from the split and augmented, in new arrays.

        Raises UsageError if the samples to augment are not images.
        """
        rng = self.augmentation_rng()
        for start in range(0, len(self.order), self.batch):
            rows = self.order[start : start + self.batch]
            inputs = augmented(split.inputs[rows], self.augmentation, rng)
            yield Split(inputs=inputs, targets=split.targets[rows])


@dataclass(frozen=True, kw_only=True)
class EpochRun:
    """Losses and metric of one epoch.

    `losses` float32 [steps] is the mean loss of each batch before its update. `metric` is that of
    toolkit.data.scores.metric_of over all samples of the epoch, from the outputs before each
    update.
    """

    losses: np.ndarray
    metric: float


class TrainingSession(ABC):
    """Model in training. A context manager that closes itself on exit."""

    @abstractmethod
    def run_epoch(self, epoch: Epoch) -> EpochRun:
        """Train for one epoch, and return after the device has finished.

        The first call may compile; call `prepare` before, to exclude that. Raises UsageError if the
        mode cannot compile the model, or the samples to augment are not images.
        """

    @abstractmethod
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return the outputs [N, outputs] float32 of one batch [N, ...], in evaluation mode."""

    @abstractmethod
    def weights(self) -> dict[str, np.ndarray]:
        """Return copies of the weights, with the names and layouts of the checkpoint."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Return copies of the weights, the optimizer's slots and its step count, for `restore`.

        After `restore`, training continues with bit-identical results on a CPU. The names depend on
        the framework and the mode.
        """

    @abstractmethod
    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore a `state` of a session of the same job.

        Raises IntegrityError if its weights do not fit the model.
        """

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Return a description of what runs, such as version, device, threads and compiler."""

    def close(self) -> None:
        """Release memory and processes. Can be called more than once."""
        return None

    @final
    def prepare(self, epoch: Epoch) -> None:
        """Compile and warm up: run `epoch` once, then restore the state before it."""
        before = self.state()
        self.run_epoch(epoch)
        self.restore(before)

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Trainer(ABC):
    """Interface of a framework that can train. Stateless.

    `modes` maps the name of each training loop to a one-line description; the first is the default.
    `shared` names the modes that can share each batch among several processes.
    """

    framework: ClassVar[str]
    modes: ClassVar[Mapping[str, str]]
    shared: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def probe(self) -> Availability:
        """Return whether the framework can be used on this machine. Never raises."""

    def start(self, settings: Settings) -> None:
        """Set the options that the framework accepts only once per process.

        Call this before any other method except `probe`. Raises UnknownNameError for an unknown
        device, and UnavailableError if the machine lacks the device, or the process already has
        other settings. The default does nothing.
        """
        return None

    @abstractmethod
    def shapes(self, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight of a family's model, by its name in the checkpoint."""

    def own_weights(self, module: Callable[[], Any], seed: int) -> dict[str, np.ndarray]:
        """Return the initial weights of a user's module, by the names that the module gives them.

        The module initialises them, after the framework's generators are seeded with `seed`. Raises
        UsageError if `module` does not return a module of this framework. The default always
        raises UsageError, for a trainer without support for user modules.
        """
        raise UsageError(
            f"{self.framework} cannot train a user model.",
            hint="Give --framework torch and a callable that makes a torch.nn.Module.",
        )

    def program(self, job: Job) -> bytes | None:
        """Return a user's module as a program that opens without its code, without weights.

        A checkpoint stores it as PROGRAM. The result is None for a model of a family, and in a
        framework without such programs, as by default. Raises UsageError if the module cannot be
        exported; it can still be trained.
        """
        return None

    @abstractmethod
    def open(self, job: Job) -> TrainingSession:
        """Open a session with the initial weights of the job.

        Raises UsageError for an unknown device or mode or for a user's module that does not fit the
        task, UnavailableError for a device that this machine lacks, and IntegrityError for weights
        that do not fit the model.
        """
