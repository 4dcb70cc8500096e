"""Quantising a float graph, whole or in part, and how much each node of it costs."""

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
from toolkit.measuring.client import WorkerProcess
from toolkit.parity.closeness import Comparison


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What a node costs: the SQNR of the worst output of the model, in decibels, when that node
    alone is quantised; infinite where that changes nothing."""

    node: str
    operator: str
    sqnr_db: float

    def to_json(self) -> Json:
        return asdict(self)


@final
@dataclass(frozen=True, kw_only=True)
class Quantiser:
    """Writes graphs of eight bits of `source`, a float graph, in `ranges`; `worker` is a
    calibration_worker. `excluded` nodes stay in float in each of them."""

    worker: WorkerProcess
    source: Artifact
    ranges: Mapping[str, Mapping[str, float]]
    recipe: Recipe
    excluded: Collection[str]
    threads: int

    def write(self, target: Path, in_float: Collection[str] = ()) -> None:
        """Raises SourceError where that leaves nothing to be quantised."""
        self.worker.ask({"command": "quantise", **self._asked(target, in_float)})

    def nodes(self) -> dict[str, str]:
        """Those that may be quantised, with their operators."""
        asked = {"source": str(self.source.path), "excluded": list(self.excluded)}
        found: dict[str, str] = self.worker.ask({"command": "nodes", **asked})[0]["nodes"]
        return found

    def sensitivities(
        self, scratch: Path, batches: Sequence[Feeds], progress: Progress
    ) -> list[Sensitivity]:
        """Of each node that can be quantised by itself, the worst first, on these batches."""
        nodes, found = self.nodes(), []
        expected = [self._run(self.source, feeds) for feeds in batches]
        target = scratch / "one.onnx"
        one = replace(self.source, directory=scratch, entry=target.name)
        for number, (node, operator) in enumerate(nodes.items(), 1):
            others = [name for name in nodes if name != node]
            compared = {spec.name: Comparison() for spec in self.source.signature.outputs}
            with suppress(SourceError):  # a node that no eight-bit kernel takes by itself
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
