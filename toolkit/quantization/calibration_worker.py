"""Worker process that collects statistics of a float graph's tensors, and quantises the graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np

from calibration.base import Grid, Range
from calibration.collector import Collector
from calibration.methods import parse
from calibration.presets import Recipe
from runtimes import RUNTIMES
from toolkit.core.artifact import Artifact
from toolkit.core.codec import decode
from toolkit.core.documents import Json
from toolkit.core.errors import WorkerError
from toolkit.core.session import Session, SessionOptions, open_session
from toolkit.measuring.workers.process import Reply, run
from toolkit.measuring.workers.wire import MESSAGE


@final
class CalibrationWorker:
    """Handler of the requests of quantize.py and quantizer_client.py.

    Only statistics of the tensors are kept after a pass.
    """

    def __init__(self) -> None:
        self._session: Session | None = None
        self._collector = Collector()
        self._order: list[str] = []

    def handle(self, message: Json, arrays: Mapping[str, np.ndarray]) -> Reply:
        command = message["command"]
        if command == "open":
            options = SessionOptions(threads=message["threads"])
            artifact = decode(message["artifact"], Artifact, MESSAGE)
            self._session = open_session(RUNTIMES.create("onnxruntime"), artifact, options)
            self._order = message["order"]
            return {}, {}
        if command == "collect":
            return {"bytes": self._collect(arrays)}, {}
        if command == "ranges":
            return {"tensors": self._ranges(message["method"], message["symmetric"])}, {}
        if command == "check":
            from calibration.qdq import check_nodes

            check_nodes(Path(message["source"]), message["excluded"])
            return {}, {}
        if command == "nodes":
            from calibration.qdq import quantisable

            return {"nodes": quantisable(Path(message["source"]), message["excluded"])}, {}
        if command == "kept":
            return {"nodes": self._kept(message)}, {}
        if command == "quantise":
            self._quantise(message)
            return {}, {}
        if command == "run":
            options = SessionOptions(threads=message["threads"])
            artifact = decode(message["artifact"], Artifact, MESSAGE)
            with open_session(RUNTIMES.create("onnxruntime"), artifact, options) as session:
                return {}, session.run(arrays)
        raise WorkerError(f"The worker knows no command {command!r}.", hint="This is a bug.")

    def _kept(self, message: Json) -> Json:
        from calibration.kept import nodes_to_keep_in_float

        ranges = {name: Range(**found) for name, found in message["ranges"].items()}
        return nodes_to_keep_in_float(
            Path(message["source"]), ranges, frozenset(self._collector.infinite)
        )

    def _quantise(self, message: Json) -> None:
        from calibration.qdq import quantise

        ranges = {name: Range(**found) for name, found in message["ranges"].items()}
        quantise(
            Path(message["source"]),
            Path(message["target"]),
            ranges,
            Recipe(**message["recipe"]),
            message["excluded"],
        )

    def _collect(self, feeds: Mapping[str, np.ndarray]) -> int:
        """Run a batch, add its tensors to the statistics, and return the bytes of the outputs."""
        assert self._session is not None
        outputs = self._session.run(feeds)
        self._collector.add(feeds)
        self._collector.add({name: outputs[name] for name in self._order if name in outputs})
        return sum(array.nbytes for array in outputs.values())

    def _ranges(self, method: str, symmetric: bool) -> Json:
        chosen = self._collector.ranges(parse(method), Grid(symmetric=symmetric))
        return {
            name: {
                "low": chosen[name].low,
                "high": chosen[name].high,
                "least": histogram.least,
                "greatest": histogram.greatest,
                "count": histogram.count,
            }
            for name, histogram in self._collector.histograms.items()
            if histogram.count
        }


if __name__ == "__main__":
    run(CalibrationWorker())
