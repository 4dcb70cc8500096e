"""Operation counts of a pass over an artifact."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import ToolkitError, WorkerError
from toolkit.core.work import Work
from toolkit.sources.isolated_backend import open_files

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of the inputs, by name."""


def work_of(artifacts: Sequence[Artifact], shapes: Shapes, warnings: list[str]) -> Work | None:
    """Count the operations and bytes of the ONNX graph among `artifacts`, variants of one model.

    Return None if there is no graph, or, with an entry in `warnings`, if it cannot be analysed.
    Raises WorkerError for a graph that needs too much memory or time.
    """
    graph = next((artifact for artifact in artifacts if artifact.format is Format.ONNX), None)
    if graph is None:
        return None
    try:
        return _count(graph.path, graph.digest, tuple(shapes.items()))
    except WorkerError:
        raise  # the file needs too much memory or time, so nothing else should open it
    except ToolkitError as error:
        warning = f"No operations were counted. {error.problem} {error.hint}"
        if warning not in warnings:
            warnings.append(warning)
        return None


@functools.lru_cache(maxsize=16)  # rows of a group share it, and a model may be gigabytes
def _count(path: Path, digest: str, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> Work:
    with open_files() as files:
        return files.count_work(path, dict(shapes))
