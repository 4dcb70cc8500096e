"""Export a checkpoint: exporter, weight parity, output parity, manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exporters import EXPORTERS
from exporters.weight_parity import WeightParity, compare
from toolkit.core.artifact import Artifact, Checkpoint, parent_of
from toolkit.core.documents import Json, seal, write_document
from toolkit.core.errors import ParityError, UsageError
from toolkit.core.files import new_directory, refuse_existing
from toolkit.core.measurement import Agreement
from toolkit.core.progress import Progress, Silent
from toolkit.core.specs import Feeds
from toolkit.measuring.client import WorkerProcess
from toolkit.measuring.environment import session_options
from toolkit.parity.outputs import combine, compare_outputs
from toolkit.parity.tolerances import tolerance_for
from toolkit.steps.inputs import InputRequest, input_source
from toolkit.steps.reference import reference_worker
from toolkit.steps.sources import open_checkpoint

PARITY_BATCHES = (1, 3, 64)
PARITY_SCHEMA = "toolkit.parity/1"
CHECKED_WITH = "onnxruntime"
TIMEOUT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Export:
    """A proved artifact: every weight found, every output within tolerance."""

    artifact: Artifact
    weights: WeightParity
    outputs: Mapping[int, Agreement]
    inputs: str

    def to_json(self) -> Json:
        return {
            "artifact": str(self.artifact.directory),
            "digest": self.artifact.digest,
            **_parity_json(self.weights, self.outputs, self.inputs),
        }


def export(
    checkpoint: str | os.PathLike[str],
    *,
    to: str,
    out: str | os.PathLike[str],
    progress: Progress | None = None,
) -> Export:
    """Writes the checkpoint in format `to` to the new directory `out`, with the proof beside it.

    Raises ParityError, and leaves nothing behind, when a weight is missing or altered or an
    output is not the model's; SourceError and IntegrityError for the checkpoint; UsageError for a
    target that does not take it; OutputExistsError.
    """
    target = Path(out)
    refuse_existing(target)
    EXPORTERS.entry(to)
    source = open_checkpoint(checkpoint)
    listener = progress or Silent()
    exporter = EXPORTERS.create(to)
    if source.spec.framework not in exporter.frameworks:
        raise UsageError(
            f"{to} is made from {' or '.join(sorted(exporter.frameworks))}; "
            f"{source.directory} is {source.spec.framework}.",
            hint="Choose another target.",
        )
    with new_directory(target) as partial:
        listener.update("export", 1, 4, f"write {to}")
        exported = exporter.export(source, partial)
        listener.update("export", 2, 4, "weight parity")
        weights = compare(source.weights(), exporter.stored_tensors(partial / exported.entry))
        if not weights.passed:
            raise _weights_differ(weights, target)
        listener.update("export", 3, 4, f"output parity on {CHECKED_WITH}")

        def save() -> Artifact:
            return Artifact.save(
                partial,
                model=source.spec,
                format=exporter.format,
                precision=exported.precision,
                signature=source.spec.signature,
                entry=exported.entry,
                parents=(parent_of(target, source),),
                options=exported.options,
            )

        outputs, inputs = _output_parity(save(), source)
        if not combine(list(outputs.values())).passed:
            raise _outputs_differ(outputs, target)
        document = seal(PARITY_SCHEMA, _parity_json(weights, outputs, inputs))
        write_document(partial / "parity.json", document)
        save()
        listener.update("export", 4, 4, "done")
    return Export(artifact=Artifact.load(target), weights=weights, outputs=outputs, inputs=inputs)


def _parity_json(weights: WeightParity, outputs: Mapping[int, Agreement], inputs: str) -> Json:
    return {
        "weights": weights.to_json(),
        "outputs": [
            {"batch": batch, "runtime": CHECKED_WITH, "inputs": inputs, **agreement.to_json()}
            for batch, agreement in outputs.items()
        ],
    }


def _output_parity(artifact: Artifact, checkpoint: Checkpoint) -> tuple[dict[int, Agreement], str]:
    """The artifact on a runtime against the checkpoint in its framework, by batch."""
    inputs = input_source(artifact, InputRequest())
    feeds: dict[int, list[Feeds]] = {batch: inputs.sets(batch) for batch in PARITY_BATCHES}
    options = session_options(None)
    with reference_worker(
        [checkpoint.artifact()], threads=options.threads, timeout_s=TIMEOUT_S
    ) as worker:
        expected = {batch: [worker.run(one) for one in sets] for batch, sets in feeds.items()}
    with WorkerProcess(threads=options.threads, timeout_s=TIMEOUT_S) as worker:
        worker.open(CHECKED_WITH, [artifact], options)
        got = {batch: [worker.run(one) for one in sets] for batch, sets in feeds.items()}
    tolerance = tolerance_for(artifact.precision)
    agreements = {
        batch: combine(
            [
                compare_outputs(a, b, tolerance)
                for a, b in zip(got[batch], expected[batch], strict=True)
            ]
        )
        for batch in PARITY_BATCHES
    }
    return agreements, inputs.description


def _weights_differ(weights: WeightParity, target: Path) -> ParityError:
    failures = weights.failures()
    named = "; ".join(f"{t.name} {list(t.shape)} is {t.match}" for t in failures[:5])
    more = f" and {len(failures) - 5} more" if len(failures) > 5 else ""
    return ParityError(
        f"Weight parity failed: {weights.proved} of {weights.total} weights are in the exported "
        f"graph bit for bit; {named}{more}. {target} was not written.",
        hint="The exporter changed the model. Report it with the versions from `toolkit doctor`.",
    )


def _outputs_differ(outputs: Mapping[int, Agreement], target: Path) -> ParityError:
    batch, worst = next((b, a) for b, a in outputs.items() if not a.passed)
    return ParityError(
        f"Output parity failed at batch {batch}: {worst.reason}. {target} was not written.",
        hint="The weights are right, so an operation is not: compare the graph with the model.",
    )
