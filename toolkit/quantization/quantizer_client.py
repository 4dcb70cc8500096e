"""Quantise a float graph, in whole or in part, and measure the sensitivity of its nodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final

from calibration.presets import Recipe
from toolkit.core.artifact import Artifact
from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.errors import SourceError
from toolkit.core.progress import Progress
from toolkit.core.specs import Feeds
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.parity.closeness import Comparison


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Effect of quantising one node alone.

    `sqnr_db` is the SQNR of the worst output of the model in decibels, infinite if no output
    changes.
    """

    node: str
    operator: str
    sqnr_db: float

    def to_json(self) -> Json:
        return asdict(self)


@final
@dataclass(frozen=True, kw_only=True)
class Quantiser:
    """Writer of INT8 variants of `source`, a float graph, with the quantisation ranges `ranges`.

    `worker` is a process of toolkit.quantization.calibration_worker. `excluded` nodes stay in
    floating point in every graph.
    """

    worker: WorkerProcess
    source: Artifact
    ranges: Mapping[str, Mapping[str, float]]
    recipe: Recipe
    excluded: Collection[str]
    threads: int

    def write(self, target: Path, in_float: Collection[str] = ()) -> None:
        """Write an INT8 graph to `target`, with the nodes `in_float` in floating point too.

        Raises SourceError if nothing is left to quantise.
        """
        self.worker.ask({"command": "quantise", **self._asked(target, in_float)})

    def nodes(self) -> dict[str, str]:
        """Return the operator of each node that may be quantised, by node name."""
        asked = {"source": str(self.source.path), "excluded": list(self.excluded)}
        found: dict[str, str] = self.worker.ask({"command": "nodes", **asked})[0]["nodes"]
        return found

    def sensitivities(
        self, scratch: Path, batches: Sequence[Feeds], progress: Progress
    ) -> list[Sensitivity]:
        """Measure on `batches` each node that can be quantised alone; return the worst first."""
        nodes, found = self.nodes(), []
        expected = [self._run(self.source, feeds) for feeds in batches]
        target = scratch / "one.onnx"
        one = replace(self.source, directory=scratch, entry=target.name)
        for number, (node, operator) in enumerate(nodes.items(), 1):
            others = [name for name in nodes if name != node]
            compared = {spec.name: Comparison() for spec in self.source.signature.outputs}
            with suppress(SourceError):  # no INT8 kernel takes this node alone
                self.write(target, others)
                for feeds, wanted in zip(batches, expected, strict=True):
                    got = self._run(one, feeds)
                    for name, comparison in compared.items():
                        comparison.add(got[name], wanted[name])
                worst = min(each.result().sqnr_db for each in compared.values())
                found.append(Sensitivity(node=node, operator=operator, sqnr_db=worst))
            progress.update("sensitivity", number, len(nodes), node)
        return sorted(found, key=lambda one: one.sqnr_db)

    def _run(self, artifact: Artifact, feeds: Feeds) -> Feeds:
        asked = {"command": "run", "artifact": encode(artifact), "threads": self.threads}
        return self.worker.ask(asked, feeds)[1]

    def _asked(self, target: Path, in_float: Collection[str]) -> Json:
        return {
            "source": str(self.source.path),
            "target": str(target.resolve()),
            "ranges": self.ranges,
            "recipe": asdict(self.recipe),
            "excluded": [*self.excluded, *in_float],
        }
