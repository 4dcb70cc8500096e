"""Worker process of a row that trains: one trainer and its session, with epochs on command.

Started as `python -P -m toolkit.measuring.workers.training_worker`, with the interpreter of the
framework. Beside the framework it only needs numpy (1.23 or newer), safetensors and msgspec.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Mapping
from typing import Any, final

import numpy as np

from models import FAMILIES
from models.initial import fresh_weights
from toolkit.core.codec import decode, encode
from toolkit.core.documents import Json, canonical
from toolkit.core.errors import SessionError, UnavailableError, WorkerError
from toolkit.core.files import digest_bytes
from toolkit.core.memory import peak_rss_bytes, rss_bytes
from toolkit.core.session import Provenance
from toolkit.core.specs import ModelSpec
from toolkit.core.usercode import UserCode, load_user_code
from toolkit.data.base import Split
from toolkit.measuring.timing.clock import collector_at_rest
from toolkit.measuring.timing.memory import watched
from toolkit.measuring.timing.placement import begin_on
from toolkit.measuring.workers.process import Reply, run
from toolkit.measuring.workers.wire import MESSAGE
from toolkit.trainers import TRAINERS
from toolkit.trainers.base import Epoch, Job, Settings, Trainer, TrainingSession
from toolkit.trainers.recipe import Recipe
from toolkit.trainers.run import epoch_of

FIRST_STEPS = 20


@final
class TrainingWorker:
    """State of the process between commands."""

    def __init__(self) -> None:
        self._session: TrainingSession | None = None
        self._job: Job | None = None
        self._framework = ""
        self._epochs = 0

    def handle(self, message: Json, arrays: Mapping[str, np.ndarray]) -> Reply:
        command = message["command"]
        begin_on(message.get("core"))
        if command == "train":
            return self._open(message), {}
        if command == "memory":
            return {"peak_rss_bytes": peak_rss_bytes()}, {}
        if self._session is None or self._job is None:
            raise SessionError(f"{command!r} came before a session was opened.", hint="Open one.")
        if command == "epochs":
            return self._run_epochs(self._session, self._job, message["count"])
        if command == "provenance":
            return {"provenance": encode(self._provenance(self._session, self._job))}, {}
        raise WorkerError(f"The worker knows no command {command!r}.", hint="This is a bug.")

    def _open(self, message: Json) -> Json:
        """Import the framework, open a session with fresh weights and prepare it.

        The duration and the memory growth of each step are measured.
        """
        self._framework = framework = message["framework"]
        spec = decode(message["spec"], ModelSpec, MESSAGE)
        recipe = decode(message["recipe"], Recipe, MESSAGE)
        train = Split(
            **{name: np.load(path, allow_pickle=False) for name, path in message["split"].items()}
        )
        opening: dict[str, int | None] = {}
        with watched("import", opening, time.perf_counter_ns):
            trainer = _trainer(framework)
        with watched("open", opening, time.perf_counter_ns):
            settings = Settings(**message["settings"])
            trainer.start(settings)
            own = None if message["own"] is None else load_user_code(message["own"])
            job = Job(
                spec=spec,
                mode=message["mode"] or next(iter(trainer.modes)),
                recipe=recipe,
                train=train,
                weights=_weights(trainer, spec, recipe.seed, own),
                settings=settings,
                module=own.make if own else None,
            )
            session = trainer.open(job)
        first = epoch_of(recipe, 0, len(train))
        with watched("first_run", opening, time.perf_counter_ns):
            session.prepare(first)
        self._session, self._job = session, job
        gc.freeze()  # keeps the collection before each block from visiting all imported objects
        return {
            "mode": job.mode,
            "start": start_of(job.weights, first),
            "opening": opening,
        }

    def _run_epochs(self, session: TrainingSession, job: Job, count: int) -> Reply:
        """Run and time the next `count` epochs; numbers continue from call to call."""
        samples: list[int] = []
        losses: list[float] = []
        first_steps = np.empty(0, np.float32)
        rows = len(job.train)
        with collector_at_rest():
            for number in range(self._epochs, self._epochs + count):
                epoch = epoch_of(job.recipe, number, rows)
                began = time.perf_counter_ns()
                ran = session.run_epoch(epoch)
                samples.append(time.perf_counter_ns() - began)
                refuse_lost(ran.losses, number)
                sizes = np.diff([*range(0, rows, epoch.batch), rows])
                losses.append(float(np.average(ran.losses, weights=sizes)))
                if number == 0:
                    first_steps = np.asarray(ran.losses[:FIRST_STEPS], np.float32)
        self._epochs += count
        return {"rss_bytes": rss_bytes()}, {
            "samples": np.array(samples, np.int64),
            "losses": np.array(losses, np.float64),
            "first_steps": first_steps,
        }

    def _provenance(self, session: TrainingSession, job: Job) -> Provenance:
        """Return what the session reports; missing values are those of the job, or defaults."""
        told: dict[str, Any] = session.provenance()
        python = {"python": sys.version.split()[0], "numpy": np.__version__}
        return Provenance(
            runtime=f"{self._framework}:{job.mode}",
            version=str(told.get("version", "unknown")),
            device=str(told.get("device", job.settings.device)),
            precision=str(told.get("dtype", "float32")),
            threads=int(told.get("threads") or job.settings.threads),
            details={**told, **python},
        )


def _trainer(framework: str) -> Trainer:
    """Return the trainer. Raises UnknownNameError, or UnavailableError if it cannot be used."""
    trainer = TRAINERS.create(framework)
    availability = trainer.probe()
    if not availability.ok:
        raise UnavailableError(
            f"{framework} cannot be used here: {availability.reason}.",
            hint=availability.hint or f"Install it: {TRAINERS.entry(framework).install}",
        )
    return trainer


def _weights(
    trainer: Trainer, spec: ModelSpec, seed: int, own: UserCode | None
) -> dict[str, np.ndarray]:
    """Return the initial weights, bit-identical in all frameworks for a model of a family."""
    if own is not None:
        return trainer.own_weights(own.make, seed)
    return fresh_weights(trainer.shapes(spec), seed, FAMILIES.create(spec.family).initialisation)


def start_of(weights: Mapping[str, np.ndarray], epoch: Epoch) -> str:
    """Return a digest of the weights and of an epoch's sample order, learning rates and seed.

    Digests are equal only if all of these are bit-identical.
    """
    arrays = {**weights, "order of rows": epoch.order, "learning rates": epoch.rates}
    parts = {
        name: [array.dtype.str, list(array.shape), digest_bytes(array.tobytes())]
        for name, array in arrays.items()
    }
    return digest_bytes(canonical({**parts, "draw": epoch.draw}))


def refuse_lost(losses: np.ndarray, epoch: int) -> None:
    """Raise SessionError if a loss is not finite."""
    if not np.isfinite(losses).all():
        step = int(np.flatnonzero(~np.isfinite(losses))[0])
        raise SessionError(
            f"The loss is {losses[step]} at step {step + 1} of epoch {epoch + 1}.",
            hint="Give a smaller --lr, or another --optimizer or --seed.",
        )


if __name__ == "__main__":
    run(TrainingWorker())
