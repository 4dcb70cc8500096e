"""What the rewrites of a graph are worth, on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from figure import Figure, Place

import toolkit
from toolkit.measuring.timing.engine import Procedure

PASSES = (("fold-time-channel",), ("fold-batch-norm", "fold-time-channel"))
PROMISES = {200: 2.0, 1: 1.4}  # so many times faster, by batch
APART = 1e-5


def figures(place: Place) -> Iterator[Figure]:
    """odenet at four steps, with its time channel and without, a block of each in turn."""
    net, plain = place.directory / "odenet", place.directory / "odenet-onnx"
    toolkit.train("odenet", data="digits", epochs=1, batch=32, out=net)
    toolkit.export(net, to="onnx", out=plain)
    for passes in PASSES:
        yield from _folded(place, net, plain, passes)


def _folded(place: Place, net: Path, plain: Path, passes: Sequence[str]) -> Iterator[Figure]:
    what = f"odenet with {' and '.join(passes)}"
    folded = place.directory / "-".join(("odenet", *passes))
    done = toolkit.export(net, to="onnx", passes=passes, out=folded)
    worst = done.outputs.worst.judgement.relative
    yield Figure(
        what=f"{what}: outputs apart from torch's, relatively",
        found=f"{worst:.1e}",
        promised=f"at most {APART:g}",
        kept=worst <= APART,
    )
    for batch, least in PROMISES.items():
        (pair,) = toolkit.compare(
            plain,
            folded,
            batches=[batch],
            scopes=["forward"],
            procedure=Procedure(max_seconds=20),
            out=place.results,
        ).pairs
        times = 1 / pair.ratio.value if pair.ratio else 0.0
        yield Figure(
            what=f"{what}, ONNX Runtime at batch {batch}",
            found=f"{times:.2f} times faster" if pair.ratio else str(pair.reason),
            promised=f"at least {least:g} times",
            kept=times >= least,
        )
