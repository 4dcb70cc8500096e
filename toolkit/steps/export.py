"""Export a model: exporter, weight parity, output parity, manifest."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import models
from exporters import EXPORTERS
from exporters.base import Exported, Exporter
from exporters.weight_parity import WeightParity, compare
from toolkit.core.artifact import PROGRAM, Artifact, Format, Parent, parents_of
from toolkit.core.documents import Json, seal, write_document
from toolkit.core.errors import ParityError, UsageError
from toolkit.core.files import new_directory, refuse_existing
from toolkit.core.measurement import Agreement
from toolkit.core.progress import Progress, Silent
from toolkit.core.siblings import ours
from toolkit.core.specs import Feeds, Signature, TensorSpec
from toolkit.measuring.client import WorkerProcess
from toolkit.measuring.environment import session_options
from toolkit.parity.outputs import combine, compare_outputs
from toolkit.parity.tolerances import tolerance_for
from toolkit.steps.inputs import InputRequest, input_source, resolve_batches
from toolkit.steps.parity_weights import stored_tensors, weights_of
from toolkit.steps.reference import reference_runtime, reference_worker
from toolkit.steps.sources import candidates, open_artifact

PARITY_BATCHES = (1, 3, 64)
PARITY_SCHEMA = "toolkit.parity/2"
PROOF = "parity.json"
TIMEOUT_S = 300.0
CONSTANT = (
    "warning: an output is the same for all inputs that were tried, so that it proves little: give "
    "others with --data or --inputs, or look whether the model is what it should be."
)
STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Export:
    """A proved artifact: every weight explained, every output within tolerance.

    `outputs` are those of runtime `checked_with` against `reference`, by batch.
    """

    artifact: Artifact
    weights: WeightParity
    outputs: Mapping[int, Agreement]
    inputs: str
    checked_with: str
    reference: str

    def to_json(self) -> Json:
        return {
            "artifact": str(self.artifact.directory),
            "digest": self.artifact.digest,
            **self.proof(),
        }

    def proof(self) -> Json:
        return {
            "weights": self.weights.to_json(),
            "outputs": [
                {
                    "batch": batch,
                    "runtime": self.checked_with,
                    "reference": self.reference,
                    "inputs": self.inputs,
                    **agreement.to_json(),
                }
                for batch, agreement in self.outputs.items()
            ],
        }


def export(
    source: str | os.PathLike[str],
    *,
    to: str,
    out: str | os.PathLike[str],
    passes: Sequence[str] = (),
    inputs: InputRequest | None = None,
    progress: Progress | None = None,
) -> Export:
    """Writes the model of `source` in format `to` to the new directory `out`, with the proof.

    `source` is a checkpoint, an artifact, or an .onnx file. Where the target is made from another
    format than that, the model is exported to it first, to a place that is removed again: the
    proof is against `source`. `passes` rewrite the ONNX graph, after the weights in it are proved
    and before anything is made of it; the outputs are compared after them. `inputs` are what the
    outputs are compared on, as in `bench`.

    Raises ParityError, and leaves nothing behind, when a weight is missing or altered or an
    output is not the model's; SourceError and IntegrityError for the source; UsageError for a
    target that does not take it; OutputExistsError.
    """
    target = Path(out)
    refuse_existing(target)
    EXPORTERS.entry(to)
    given = open_artifact(source)
    listener = progress or Silent()
    exporter = EXPORTERS.create(to)
    _require_passes(passes, to, exporter)
    _require_builder(given, exporter)
    with new_directory(target) as partial, tempfile.TemporaryDirectory() as scratch:
        listener.update("export", 1, STEPS, f"write {to}")
        taken = _on_the_way(given, to, exporter, passes, Path(scratch))
        exported = taken.export(exporter, partial)
        listener.update("export", 2, STEPS, "weight parity")
        weights = taken.prove(exporter.format, partial / exported.entry)
        if not weights.passed:
            raise _weights_differ(weights, target)
        changes, signature = taken.changes, taken.artifact.signature
        if exporter.format is Format.ONNX:
            path = partial / exported.entry
            changes, exported, signature = _rewrite(passes, path, exported, signature)
        listener.update("export", 3, STEPS, f"output parity on {exporter.checked_with}")

        def save() -> Artifact:
            named = replace(
                exported,
                options={
                    **exported.options,
                    "passes": [*given.options.get("passes", ()), *changes],
                },
            )
            parents = parents_of(target, given)
            return _saved(partial, given, exporter.format, named, signature, parents)

        done = _compared(save(), given, weights, exporter, inputs or InputRequest(), listener)
        if not combine(list(done.outputs.values())).passed:
            raise _outputs_differ(done, target)
        write_document(partial / PROOF, seal(PARITY_SCHEMA, done.proof()))
        save()
        listener.update("export", STEPS, STEPS, "done")
    return Export(**{**vars(done), "artifact": Artifact.load(target)})


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """What an exporter starts from: `given` itself, or the ONNX graph that was made of it, proved
    by `weights`, then rewritten as `changes` say."""

    given: Artifact
    artifact: Artifact
    weights: WeightParity | None = None
    changes: Sequence[Json] = ()

    def export(self, exporter: Exporter, directory: Path) -> Exported:
        if self.artifact.format is exporter.format:  # nothing to make but a copy, for the passes
            return _copied(self.artifact, directory)
        return exporter.export(self.artifact, directory)

    def prove(self, format: Format, path: Path) -> WeightParity:
        """The proof of what was exported against `given`.

        Where passes rewrote the graph between, it is that of the graph before them, if what was
        exported is the graph after them.
        """
        stored = stored_tensors(format, path)
        if not self.changes or self.weights is None:
            return compare(weights_of(self.given), stored)
        last = compare(weights_of(self.artifact), stored)
        return last if not last.passed else self.weights


def _on_the_way(
    given: Artifact, to: str, exporter: Exporter, passes: Sequence[str], scratch: Path
) -> _Taken:
    """What the exporter takes, of `given`. Raises UsageError where that cannot be made."""
    if given.format is exporter.format is Format.ONNX:
        return _Taken(given=given, artifact=given)
    if given.format is exporter.takes and not (passes and given.format is Format.ONNX):
        return _Taken(given=given, artifact=given)
    if exporter.takes is not Format.ONNX or given.format not in (Format.CHECKPOINT, Format.ONNX):
        raise UsageError(
            f"{to} is made from {exporter.takes}; {given.path} is {given.format}.",
            hint="Choose another target, or export the checkpoint that it came from.",
        )
    if given.format is Format.ONNX:
        exported = _copied(given, scratch)
    else:
        first = EXPORTERS.create(Format.ONNX)
        _require_builder(given, first)
        exported = first.export(given, scratch)
    weights = compare(weights_of(given), stored_tensors(Format.ONNX, scratch / exported.entry))
    path = scratch / exported.entry
    changes, exported, signature = _rewrite(passes, path, exported, given.signature)
    artifact = _saved(scratch, given, Format.ONNX, exported, signature, ())
    return _Taken(given=given, artifact=artifact, weights=weights, changes=changes)


def _saved(
    directory: Path,
    given: Artifact,
    format: Format,
    exported: Exported,
    signature: Signature,
    parents: tuple[Parent, ...],
) -> Artifact:
    """The manifest of what an exporter wrote of `given`."""
    return Artifact.save(
        directory,
        model=given.model,
        format=format,
        precision=exported.precision,
        signature=signature,
        entry=exported.entry,
        parents=parents,
        options=exported.options,
    )


def _rewrite(
    passes: Sequence[str], path: Path, exported: Exported, signature: Signature
) -> tuple[list[Json], Exported, Signature]:
    """Runs the passes on a graph; what each changed, and what is in the graph then, which takes
    and gives what `signature` says, in the same order, but for what the passes fixed."""
    if not passes:
        return [], exported, signature
    with ours():
        from exporters.onnx_file import read_precision, read_signature
        from exporters.passes.rewriting import apply

    changes = apply(passes, path)
    found = read_signature(path)
    after = Signature(
        inputs=_with_layouts(found.inputs, signature.inputs),
        outputs=_with_layouts(found.outputs, signature.outputs),
    )
    return changes, replace(exported, precision=read_precision(path)), after


def _with_layouts(
    found: Sequence[TensorSpec], known: Sequence[TensorSpec]
) -> tuple[TensorSpec, ...]:
    """What a file declares, with the layouts that it cannot, and the names of axes that it lost."""
    return tuple(
        replace(
            a,
            shape=tuple(
                x if isinstance(x, int) else y for x, y in zip(a.shape, b.shape, strict=True)
            ),
            layout=b.layout,
        )
        for a, b in zip(found, known, strict=True)
    )


def _copied(artifact: Artifact, directory: Path) -> Exported:
    """The files of an ONNX artifact, each under its own name."""
    for name in artifact.files:
        if name != PROOF:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.directory / name, directory / name)
    return Exported(entry=artifact.entry, precision=artifact.precision, options=artifact.options)


def _require_passes(passes: Sequence[str], to: str, exporter: Exporter) -> None:
    """Raises UnknownNameError for a pass that is none, UsageError for a number that it does not
    take, and where there is no ONNX graph."""
    if passes:
        with ours():
            from exporters.passes.rewriting import parse

        parse(passes)
    if passes and Format.ONNX not in (exporter.format, exporter.takes):
        raise UsageError(
            f"Got passes {', '.join(passes)} for {to}, which is not made of an ONNX graph.",
            hint="Leave --passes out, or export to onnx.",
        )


def _require_builder(given: Artifact, exporter: Exporter) -> None:
    """Raises UnknownNameError for a checkpoint whose model the exporter's framework has not.

    A user's own module is a program, and asks for no builder.
    """
    builds = given.format is Format.CHECKPOINT and PROGRAM not in given.files
    if builds and exporter.framework is not None:
        family = given.model.family
        models.FAMILIES.create(family).builders.entry(exporter.framework)


def _compared(
    artifact: Artifact,
    given: Artifact,
    weights: WeightParity,
    exporter: Exporter,
    request: InputRequest,
    progress: Progress,
) -> Export:
    """The artifact on its runtime against the source's reference, by batch."""
    takes = replace(given, signature=artifact.signature)  # what both take: passes may fix the batch
    inputs = input_source(takes, request)
    implied = resolve_batches(takes, None, request.dims)
    batches = PARITY_BATCHES if implied == [1] and _any_batch(takes) else tuple(implied)
    feeds: dict[int, list[Feeds]] = {batch: inputs.sets(batch) for batch in batches}
    options = session_options(None)
    forms = candidates(given)
    names = [spec.name for spec in given.signature.outputs]
    with reference_worker(forms, threads=options.threads, timeout_s=TIMEOUT_S) as worker:
        expected = {batch: [worker.run(one) for one in sets] for batch, sets in feeds.items()}
    with WorkerProcess(threads=options.threads, timeout_s=TIMEOUT_S) as worker:
        worker.open(exporter.checked_with, [artifact], options)
        got = {batch: [worker.run(one) for one in sets] for batch, sets in feeds.items()}
    if not all(_varies([o[name] for sets in expected.values() for o in sets]) for name in names):
        progress.note(CONSTANT)
    tolerance = tolerance_for(artifact.precision)
    agreements = {
        batch: combine(
            [
                compare_outputs(a, b, tolerance)
                for a, b in zip(got[batch], expected[batch], strict=True)
            ]
        )
        for batch in batches
    }
    return Export(
        artifact=artifact,
        weights=weights,
        outputs=agreements,
        inputs=inputs.description,
        checked_with=exporter.checked_with,
        reference=reference_runtime(forms),
    )


def _varies(arrays: Sequence[np.ndarray]) -> bool:
    """Whether an output has two rows that differ, or nothing that could."""
    rows = [row for array in arrays if array.ndim for row in array]
    return len(rows) < 2 or any(not np.array_equal(rows[0], row) for row in rows[1:])


def _any_batch(artifact: Artifact) -> bool:
    """Whether the first axis of the first input takes any extent."""
    shape = artifact.signature.inputs[0].shape
    return bool(shape) and not isinstance(shape[0], int)


def _weights_differ(weights: WeightParity, target: Path) -> ParityError:
    failures = weights.failures()
    named = "; ".join(f"{t.name} {list(t.shape)} is {t.match}" for t in failures[:5])
    more = f" and {len(failures) - 5} more" if len(failures) > 5 else ""
    return ParityError(
        f"Weight parity failed: {weights.explained} of {weights.total} weights are explained in "
        f"what was exported; {named}{more}. {target} was not written.",
        hint="The exporter changed the model. Report it with the versions from `toolkit doctor`.",
    )


def _outputs_differ(done: Export, target: Path) -> ParityError:
    batch, worst = next((b, a) for b, a in done.outputs.items() if not a.passed)
    return ParityError(
        f"Output parity failed at batch {batch}: {worst.reason}. {target} was not written.",
        hint="The weights are right, so an operation is not: compare the graph with the model.",
    )
