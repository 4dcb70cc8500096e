"""Worker process of a shared training: `torchrun … -m toolkit.trainers.torch_rank DIRECTORY`.

Rank 0 receives commands from the process of the SharedSession, via a Unix socket in DIRECTORY, and
broadcasts them to the other ranks.
"""

from __future__ import annotations

import json
import socket
import sys
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

import models
from models.torch.base import TorchBuilder
from toolkit.core.codec import decode, encode
from toolkit.core.files import write_npz
from toolkit.core.specs import ModelSpec
from toolkit.data.base import Split
from toolkit.trainers.base import Job, Settings
from toolkit.trainers.recipe import Recipe
from toolkit.trainers.torch_eager import EagerSession
from toolkit.trainers.torch_team import Team

JOB, INPUTS, TARGETS, WEIGHTS, SOCKET = (
    "job.json", "inputs.npy", "targets.npy", "weights.npz", "commands",
)  # fmt: skip
PATIENCE = timedelta(days=30)  # of a rank that waits for the next command


def write_job(job: Job, directory: Path) -> None:
    """Write the files that each rank reads with `read_job`. A user's `module` is not supported."""
    np.save(directory / INPUTS, job.train.inputs)
    np.save(directory / TARGETS, job.train.targets)
    write_npz(directory / WEIGHTS, job.weights)
    body = {
        "spec": encode(job.spec),
        "mode": job.mode,
        "recipe": encode(job.recipe),
        "settings": vars(job.settings),
    }
    (directory / JOB).write_text(json.dumps(body))


def read_job(directory: Path) -> Job:
    found = json.loads((directory / JOB).read_text())
    with np.load(directory / WEIGHTS) as weights:
        return Job(
            spec=decode(found["spec"], ModelSpec, directory / JOB),
            mode=found["mode"],
            recipe=decode(found["recipe"], Recipe, directory / JOB),
            train=Split(inputs=np.load(directory / INPUTS), targets=np.load(directory / TARGETS)),
            weights=dict(weights),
            settings=Settings(**found["settings"]),
        )


def main() -> None:
    directory = Path(sys.argv[1])
    job = read_job(directory)
    cuda = job.settings.device.startswith("cuda")
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    team = Team()
    builder = models.builder(job.spec, "torch")
    assert isinstance(builder, TorchBuilder)
    channel = _connected(directory) if team.rank == 0 else None
    session = EagerSession(_own(job, team.rank, cuda), builder, team)
    while (command := _next(channel)) is not None:
        name, arguments = command
        if channel is None and name == "predict":
            continue  # outputs of rank 0 are enough
        answer = getattr(session, name)(*arguments)
        if channel is not None:
            channel.send(answer)
    session.close()
    dist.destroy_process_group()


def _own(job: Job, rank: int, cuda: bool) -> Job:
    """Return the job of one rank: on a GPU, the device is the one numbered `rank`."""
    if not cuda:
        return job
    from dataclasses import replace

    return replace(job, settings=replace(job.settings, device=f"cuda:{rank}"))


def _connected(directory: Path) -> Connection:
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(str(directory / SOCKET))
    return Connection(channel.detach())


def _next(channel: Connection | None) -> tuple[str, tuple[Any, ...]] | None:
    """Return the next command, the same in all ranks; None after the session has disconnected."""
    box: list[Any] = [None]
    if channel is not None:
        try:
            box = [channel.recv()]
        except (EOFError, OSError):
            box = [None]
    dist.broadcast_object_list(box, src=0)
    found: tuple[str, tuple[Any, ...]] | None = box[0]
    return found


if __name__ == "__main__":
    main()
