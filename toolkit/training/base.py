"""What a trainer is: a framework's loops, each a mode, behind one session."""

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
from toolkit.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the machine is used; the weights are the same whatever is chosen here, up to rounding.

    `threads` is what the runtimes are given. `loader_workers` is for the mode that has a loader in
    processes of its own, 0 for none. `deterministic` asks the framework for kernels that repeat
    bit for bit, where it has a choice. `processes` share each batch, in modes that can.
    """

    threads: int
    device: str = "cpu"
    loader_workers: int = 0
    deterministic: bool = False
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained, how, on what.

    `module` makes a user's own module, and then `weights` are under its own names; None for a
    model of a family. `weights` are what training starts from.
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
    """The batches of one epoch: the same for every framework.

    `order` int64 [rows] is which rows, in turn; `rates` float64 [steps] the learning rate of each
    step. The last batch is smaller when `batch` does not divide the rows. `number` counts from 0;
    with `seed` it seeds whatever is drawn at random in the epoch, so that an epoch that is run
    again after a stop is the same.
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
        """A seed below 2**31 for a framework's own generator, such as that of dropout."""
        return int(np.random.default_rng([self.seed, self.number, 1]).integers(2**31))

    def augmentation_rng(self) -> np.random.Generator:
        """What the augmentation of the epoch's batches draws from, in turn."""
        return np.random.default_rng([self.seed, self.number, 2])

    def batches(self, split: Split) -> Iterator[Split]:
        """Each batch of the split, gathered and augmented, in arrays of its own."""
        rng = self.augmentation_rng()
        for start in range(0, len(self.order), self.batch):
            rows = self.order[start : start + self.batch]
            inputs = augmented(split.inputs[rows], self.augmentation, rng)
            yield Split(inputs=inputs, targets=split.targets[rows])


@dataclass(frozen=True, kw_only=True)
class EpochRun:
    """What the steps of one epoch gave, complete when it is returned (synchronised).

    `losses` float32 [steps] is the mean loss of each batch before its update. `metric` is that of
    toolkit.data.scores.metric_of over all rows of the epoch, likewise before each update.
    """

    losses: np.ndarray
    metric: float


class TrainingSession(ABC):
    """A model while it is trained. A context manager: leaving it closes it."""

    @abstractmethod
    def run_epoch(self, epoch: Epoch) -> EpochRun:
        """Trains one epoch. What it compiles the first time, `prepare` has compiled already."""

    @abstractmethod
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs [N, outputs] float32 in evaluation mode, `inputs` [N, ...] being one batch."""

    @abstractmethod
    def weights(self) -> dict[str, np.ndarray]:
        """Copies of the weights, under the names and in the layouts of the checkpoint."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Copies of all that `restore` needs to go on as if nothing had happened, bit for bit on
        a CPU: weights, slots of the optimizer, its step count. Names are the framework's own."""

    @abstractmethod
    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes back to a `state` of a session of the same job."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """What really runs: version, device, threads, dtype, what was compiled by what."""

    def close(self) -> None:
        """Lets go of memory and processes. May be called again."""
        return None

    @final
    def prepare(self, epoch: Epoch) -> None:
        """Runs `epoch` once and takes it back, so that all is compiled and warm."""
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
    """A framework that trains. Stateless.

    `modes` are its loops, the first the one that is meant when none is named, each with a line
    that says what it does. `shared` are those that several processes can share.
    """

    framework: ClassVar[str]
    modes: ClassVar[Mapping[str, str]]
    shared: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def probe(self) -> Availability:
        """Whether it can be used here; imports the framework, never raises."""

    def start(self, settings: Settings) -> None:
        """Gives the process what its framework takes but once, before anything else is asked.

        Raises UnavailableError when the process has other settings already, or not the device.
        """
        return None

    @abstractmethod
    def shapes(self, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
        """The shape of every weight of a family's model, by its name in the checkpoint."""

    def own_weights(self, module: Callable[[], Any], seed: int) -> dict[str, np.ndarray]:
        """What a user's own module starts from, under its own names: its own initialisation, with
        the framework's generators seeded.

        Raises UsageError when `module` makes no module of this framework, or the trainer takes
        none, as unless it says otherwise.
        """
        raise UsageError(
            f"{self.framework} trains no model of your own here.",
            hint="Give --framework torch and a callable that makes a torch.nn.Module.",
        )

    def program(self, job: Job) -> bytes | None:
        """A user's own module in a form that opens without its code (PROGRAM of a checkpoint), or
        None where the framework has none.

        Raises UsageError, which no training need end for, for a module that has no such form.
        """
        return None

    @abstractmethod
    def open(self, job: Job) -> TrainingSession:
        """Raises UsageError for a device or mode that is not there, or a user's module that does
        not fit the task, UnavailableError for a device that this machine lacks, IntegrityError for
        weights that are not the model's."""
