"""Results as `toolkit bench` stores them, made without measuring."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from toolkit.core.measurement import Block, Measurement, Result, Row, Scope, Status
from toolkit.measuring.machine.environment import describe_environment

environment = functools.cache(describe_environment)


def result_of(runtimes: Sequence[str], **changes: Any) -> Result:
    """Return a result with a row for each runtime, of eight blocks of 40 samples of about 1 ms."""
    samples = np.arange(1_000_000, 1_000_040, dtype=np.int64)
    measurement = Measurement(
        scope=Scope.FORWARD,
        warmup=samples[:0],
        settled=True,
        blocks=tuple(Block(round=n, lead=samples[:1], samples=samples + n) for n in range(8)),
    )
    rows = tuple(
        Row(
            runtime=name, artifact=f"models/{name}", artifact_digest=f"sha256:{0:064x}", batch=1,
            status=Status.OK, precision_requested="float32", measurements=(measurement,),
        )
        for name in runtimes
    )  # fmt: skip
    plan = {"batches": [1], "runtimes": list(runtimes), "options": {"threads": 1}, "cpus": None}
    made = Result(
        id="20250101T000000Z-00c0ffee",
        created="2025-01-01T00:00:00Z",
        plan={"artifact": "models/net.onnx", **plan},
        rows=rows,
        environment=environment(),
    )
    return replace(made, **changes)
