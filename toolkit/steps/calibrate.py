"""Calibrate a float model: ranges of its tensors, a graph of eight bits, and what that costs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from calibration.methods import parse
from calibration.presets import Recipe, recipe_for
from exporters.weight_parity import WeightParity, compare
from toolkit.core.artifact import Artifact, Format, parents_of
from toolkit.core.documents import Json, seal, write_document
from toolkit.core.errors import ParityError, UsageError
from toolkit.core.files import new_directory, refuse_existing
from toolkit.core.progress import Progress, Silent
from toolkit.core.siblings import ours
from toolkit.measuring.client import WorkerProcess
from toolkit.measuring.environment import cpu_flags, session_options
from toolkit.parity.closeness import Closeness, Comparison
from toolkit.steps.calibration_rows import CalibrationRows, Picked, pick_rows
from toolkit.steps.files import Files
from toolkit.steps.inputs import batch_axis
from toolkit.steps.parity_layers import exposed
from toolkit.steps.parity_weights import weights_of
from toolkit.steps.sources import open_artifact

SCHEMA = "toolkit.calibration/1"
RECORD = "calibration.json"
ENTRY = "model.onnx"
MODULE = "toolkit.steps.calibration_worker"
TIMEOUT_S = 3600.0
FOLD = "fold-batch-norm"
VNNI = frozenset({"avx512_vnni", "avx_vnni", "asimddp", "i8mm"})
MOST_BYTES = 64 << 20  # of all inner tensors of a batch
MOST_BATCH = 64
LEAST_SQNR_DB = 10.0  # where the error has a tenth of the power of the output


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """An artifact of eight bits: the ranges that its tensors are quantised in, where each weight
    went, and how close each output is to the float model's on rows that it was not calibrated
    on."""

    artifact: Artifact
    method: str
    preset: str
    recipe: Recipe
    seed: int
    excluded: tuple[str, ...]
    rows: CalibrationRows
    tensors: Mapping[str, Mapping[str, float]]
    weights: WeightParity
    outputs: Mapping[str, Closeness]
    warnings: tuple[str, ...] = ()

    def settings(self) -> Json:
        """How it was made."""
        return {
            "method": self.method,
            "preset": self.preset,
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "excluded": list(self.excluded),
            **self.rows.to_json(),
        }

    def record(self) -> Json:
        return {
            **self.settings(),
            "tensors": {name: dict(found) for name, found in self.tensors.items()},
            "weights": self.weights.to_json(),
            "outputs": {name: found.to_json() for name, found in self.outputs.items()},
            "warnings": list(self.warnings),
        }

    def to_json(self) -> Json:
        return {
            "schema": SCHEMA,
            "artifact": str(self.artifact.directory),
            "digest": self.artifact.digest,
            **self.record(),
        }


def calibrate(
    artifact: str | os.PathLike[str],
    *,
    data: str,
    out: str | os.PathLike[str],
    method: str = "minmax",
    preset: str = "onnxruntime",
    samples: int | None = None,
    seed: int = 0,
    per_channel: bool | None = None,
    symmetric: bool | None = None,
    exclude: Sequence[str] = (),
    data_settings: Mapping[str, Any] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Writes the ONNX model `artifact` with QuantizeLinear and DequantizeLinear to the new
    directory `out`, its parent the float one.

    `method` and `preset` are names of calibration.METHODS and calibration.presets.PRESETS; None
    leaves `per_channel` (of weights) and `symmetric` (of activations) to the preset, `exclude`
    names ONNX nodes that stay in floating point. Rows are picked as in
    toolkit.steps.calibration_rows. A batch norm behind a convolution is folded into it first. A
    model whose outputs collapse is written all the same, with a warning.

    Raises SourceError for what is no float32 ONNX model; UnknownNameError and UsageError for what
    cannot be meant; ParityError, and leaves nothing behind, when a weight is not found in what was
    written; OutputExistsError.
    """
    target, listener = Path(out), progress or Silent()
    refuse_existing(target)
    with ours():
        parse(method)
    recipe = recipe_for(
        preset,
        symmetric=symmetric,
        per_channel=per_channel,
        vnni=not VNNI.isdisjoint(cpu_flags()),
    )
    source = open_artifact(artifact)
    _require_float_onnx(source)
    rows = pick_rows(
        source,
        data,
        samples=samples,
        seed=seed,
        settings=data_settings,
        directory=None if data_dir is None else Path(data_dir),
        progress=listener,
    )
    warnings = [rows.note] if rows.note else []
    if rows.left_out:
        warnings.append(
            f"{rows.left_out} training rows of {data} are test rows too, and were left out."
        )
    with new_directory(target) as partial, tempfile.TemporaryDirectory() as scratch:
        folded, passes = _folded(source, Path(scratch) / "float")
        tensors = _quantise(
            folded, partial / ENTRY, Path(scratch) / "exposed", rows.used,
            method=method, recipe=recipe, excluded=exclude, progress=listener,
        )  # fmt: skip
        weights = _proved(folded, partial / ENTRY)
        made = _saved(partial, source, {"passes": passes})
        outputs = _compared(source, made, rows.held, listener)
        warnings += _collapsed(outputs)
        done = Calibration(
            artifact=made,
            method=method,
            preset=preset,
            recipe=recipe,
            seed=seed,
            excluded=tuple(exclude),
            rows=rows,
            tensors=tensors,
            weights=weights,
            outputs=outputs,
            warnings=tuple(warnings),
        )
        for warning in warnings:
            listener.note(f"warning: {warning}")
        write_document(partial / RECORD, seal(SCHEMA, done.record()))
        _saved(partial, source, {"passes": passes, "calibration": done.settings()})
    return replace(done, artifact=Artifact.load(target))


def _require_float_onnx(source: Artifact) -> None:
    if source.format is not Format.ONNX:
        raise UsageError(
            f"{source.path} is {source.format}, and what is calibrated is ONNX.",
            hint="Export it first: toolkit export … --to onnx.",
        )
    if source.precision != "float32":
        raise UsageError(
            f"{source.path} is {source.precision}, expected float32.",
            hint="Calibrate the float32 model that it was made from.",
        )


def _folded(source: Artifact, directory: Path) -> tuple[Artifact, list[Json]]:
    """A copy with its batch norms folded, and what passes have changed in all."""
    for name in source.files:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.directory / name, directory / name)
    with ours():
        from exporters.passes.rewriting import apply

        changes = [
            change for change in apply([FOLD], directory / source.entry) if change["changed"]
        ]
    copy = open_artifact(directory / source.entry)
    return copy, [*source.options.get("passes", ()), *changes]


def _quantise(
    folded: Artifact,
    target: Path,
    scratch: Path,
    used: Picked,
    *,
    method: str,
    recipe: Recipe,
    excluded: Sequence[str],
    progress: Progress,
) -> Mapping[str, Mapping[str, float]]:
    """Writes the graph of eight bits; the range of each tensor, and what was seen of it."""
    threads = session_options(None).threads
    with WorkerProcess(threads=threads, timeout_s=TIMEOUT_S, module=MODULE) as worker:
        place = {"source": str(folded.path), "excluded": list(excluded)}
        worker.ask({"command": "check", **place})
        giving, makers = exposed(folded, scratch)
        worker.ask(
            {
                "command": "open",
                "artifact": giving.to_json(),
                "threads": threads,
                "order": list(makers),
            }
        )
        _collect(worker, giving, used, progress)
        asked = {"command": "ranges", "method": method, "symmetric": recipe.symmetric}
        tensors: dict[str, dict[str, float]] = worker.ask(asked)[0]["tensors"]
        ranges = {n: {"low": t["low"], "high": t["high"]} for n, t in tensors.items()}
        worker.ask(
            {
                "command": "quantise",
                **place,
                "target": str(target.resolve()),
                "ranges": ranges,
                "recipe": asdict(recipe),
            }
        )
    return tensors


def _collect(worker: WorkerProcess, giving: Artifact, used: Picked, progress: Progress) -> None:
    """Runs the rows, as many at a time as their inner tensors leave room for."""
    fixed = batch_axis(giving.signature)
    size, done = fixed if isinstance(fixed, int) else 1, 0
    while done < len(used):
        feeds = used.feeds(done, size)
        took = worker.ask({"command": "collect"}, feeds)[0]["bytes"]
        done += min(size, len(used) - done)
        if not isinstance(fixed, int) and size == 1:
            size = max(1, min(MOST_BATCH, MOST_BYTES // max(took, 1)))
        progress.update("calibrate", done, len(used), used.description)


def _proved(folded: Artifact, path: Path) -> WeightParity:
    """Where each weight of the float graph, its batch norms folded, went."""
    with Files() as files:
        weights = compare(weights_of(folded, files), files.stored_tensors(Format.ONNX, path))
    if not weights.passed:
        named = "; ".join(f"{t.name} is {t.match}" for t in weights.failures()[:5])
        raise ParityError(
            f"Weight parity failed: {weights.explained} of {weights.total} weights are explained "
            f"in the quantised graph; {named}. Nothing was written.",
            hint="The quantiser changed the model. Report it with the versions from `toolkit "
            "doctor`.",
        )
    return weights


def _saved(directory: Path, source: Artifact, options: Json) -> Artifact:
    return Artifact.save(
        directory,
        model=source.model,
        format=Format.ONNX,
        precision="int8",
        signature=source.signature,
        entry=ENTRY,
        parents=parents_of(directory, source),
        options=options,
    )


def _compared(
    source: Artifact, made: Artifact, held: Picked, progress: Progress
) -> Mapping[str, Closeness]:
    """Each output of ONNX Runtime on both, on the same rows, in batches that are not kept."""
    options = session_options(None)
    fixed = batch_axis(source.signature)
    size = fixed if isinstance(fixed, int) else MOST_BATCH
    found = {spec.name: Comparison() for spec in source.signature.outputs}

    def start(artifact: Artifact) -> WorkerProcess:
        worker = WorkerProcess(threads=options.threads, timeout_s=TIMEOUT_S)
        worker.open("onnxruntime", [artifact], options)
        return worker

    with start(source) as reference, start(made) as other:
        for number, feeds in enumerate(held.batches(size)):
            expected, got = reference.run(feeds), other.run(feeds)
            for name, comparison in found.items():
                comparison.add(got[name], expected[name])
            done = min((number + 1) * size, len(held))
            progress.update("compare", done, len(held), held.description)
    return {name: comparison.result() for name, comparison in found.items()}


def _collapsed(outputs: Mapping[str, Closeness]) -> list[str]:
    return [
        f"OUTPUT {name!r} HAS COLLAPSED: its SQNR is {found.sqnr_db:.1f} dB, expected "
        f"{LEAST_SQNR_DB:g} or more. Try another --method, more --samples, or --exclude nodes."
        for name, found in outputs.items()
        if not found.sqnr_db >= LEAST_SQNR_DB
    ]
