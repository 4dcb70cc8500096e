"""Variants of a model that `bench` measures: existing ones, and exports made for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from toolkit.core.artifact import SOURCE, Artifact
from toolkit.core.documents import Json
from toolkit.core.progress import Progress
from toolkit.core.temporary import scratch_directory
from toolkit.exporting.export import export
from toolkit.sources.capture import Example, is_in_no_file, remark_on
from toolkit.sources.inputs import InputRequest
from toolkit.sources.isolated_backend import open_files
from toolkit.sources.resolve import absent_parent, candidates, open_source

USUAL = ("onnx",)  # default targets of user code and families


@dataclass(frozen=True, kw_only=True)
class Forms:
    """Variants of a model to measure.

    `name` is the model as the user named it, and `source` the artifact that all exports were made
    from. `artifacts` are the variants that runtimes may open, exports first, and `named` those that
    were requested. `request` fits the inputs of `source`. `exports` has a summary of each export's
    proof. `warnings` are about fresh weights, a missing checkpoint and wrong declared shapes.
    """

    name: str
    source: Artifact
    artifacts: tuple[Artifact, ...]
    named: Sequence[Artifact]
    request: InputRequest
    exports: Sequence[Json]
    warnings: Sequence[str]


@contextmanager
def forms_of(
    source: str | os.PathLike[str],
    to: Sequence[str] | None,
    example: Example | None,
    inputs: InputRequest,
    progress: Progress,
) -> Iterator[Forms]:
    """Export `source` to each target in `to`, with proof, and yield the variants.

    The exports are removed after the block. By default, user code and families are exported to
    USUAL, other sources to nothing. Raises what `export` raises.
    """
    unmade = is_in_no_file(source)
    targets = list(dict.fromkeys((USUAL if unmade else ()) if to is None else to))
    with scratch_directory() as scratch:
        place = scratch / SOURCE
        with open_files() as files:
            origin, request = open_source(source, example, inputs, place, files)
            wrong = files.wrong_extents(origin)
        found, exports = [], []
        for target in targets:
            done = export(
                place if unmade else source,
                to=target,
                out=scratch / target,
                inputs=request,
                progress=progress,
            )
            found.append(done.artifact)
            exports.append(
                {
                    "target": target,
                    "digest": done.artifact.digest,
                    "weights": done.weights.summary(),
                    "outputs": done.outputs.to_json(),
                }
            )
        forms = {form.digest: form for first in (*found, origin) for form in candidates(first)}
        remark = remark_on(source)
        absent = None if targets else absent_parent(origin)
        name = os.fspath(source) if unmade else str(origin.path)
        yield Forms(
            name=name,
            source=origin,
            artifacts=tuple(forms.values()),
            named=found or [origin],
            request=request,
            exports=exports,
            warnings=[warning for warning in (remark, absent, *wrong) if warning],
        )
