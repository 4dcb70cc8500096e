"""Calibrate a float model, write it in INT8, and compare the outputs of the two."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.methods import parse
from calibration.presets import PRESETS, Recipe, recipe_for
from exporters.proof.weight_parity import WeightParity
from toolkit.core.artifact import Artifact, Format
from toolkit.core.documents import Json, seal, write_document
from toolkit.core.errors import UsageError
from toolkit.core.files import new_directory, refuse_existing
from toolkit.core.import_isolation import toolkit_imports
from toolkit.core.progress import Progress, Silent
from toolkit.core.temporary import scratch_directory
from toolkit.measuring.machine.environment import has_vnni, session_options
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.parity.closeness import Closeness, Comparison
from toolkit.parity.paired import check_max_drop
from toolkit.quantization.calibration_data import CalibrationRows, SampleSelection, pick_rows
from toolkit.quantization.mixed_precision import Accuracy, Mixture
from toolkit.quantization.quantize import (
    LITERT,
    MOST_BATCH,
    TIMEOUT_S,
    How,
    saved,
    write_litert,
    write_onnx,
)
from toolkit.sources.isolated_backend import READING_S, open_files, sharing_files
from toolkit.sources.labelled_data import load_labelled
from toolkit.sources.reference_runtime import REFERENCES, reference_of
from toolkit.sources.resolve import candidates, open_artifact
from toolkit.verification.reference_run import ReferenceRun

SCHEMA = "toolkit.calibration/1"
RECORD = "calibration.json"
RUNS_ON = {"tensorrt": "onnxruntime"}  # by preset: runtime that measures accuracy, if another
LEAST_SQNR_DB = 10.0  # the error then has a tenth of the power of the output


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """An INT8 artifact, how it was calibrated, and how close it is to the float model.

    `tensors` has the range and the statistics of each tensor, and `weights` where each weight is.
    `outputs` has how close each output is to the float model's on the samples `rows.held`. `kept`
    has the nodes that stay in floating point by default, with the reason.
    """

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
    mixture: Mixture | None = None
    kept: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def settings(self) -> Json:
        """Return the settings that the artifact was made with."""
        return {
            "method": self.method,
            "preset": self.preset,
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "excluded": list(self.excluded),
            "kept": dict(self.kept),
            "in_float": list(self.mixture.in_float) if self.mixture else [],
            **self.rows.to_json(),
        }

    def record(self) -> Json:
        return {
            **self.settings(),
            "tensors": {name: dict(found) for name, found in self.tensors.items()},
            "weights": self.weights.to_json(),
            "outputs": {name: found.to_json() for name, found in self.outputs.items()},
            "mixture": self.mixture and self.mixture.to_json(),
            "warnings": list(self.warnings),
        }

    def to_json(self) -> Json:
        return {
            "schema": SCHEMA,
            "artifact": str(self.artifact.directory),
            "digest": self.artifact.digest,
            **self.record(),
        }


@sharing_files
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
    max_drop: float | None = None,
    data_settings: Mapping[str, Any] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    timeout_s: float = READING_S,
    progress: Progress | None = None,
) -> Calibration:
    """Quantise the float32 model `artifact` to INT8, and write it to the new directory `out`.

    An ONNX graph gets QuantizeLinear and DequantizeLinear nodes. With preset litert, a SavedModel
    becomes an INT8 LiteRT file. The parent of the new artifact is the float model.

    `method` and `preset` are names of calibration.METHODS and calibration.presets.PRESETS. The
    preset decides `per_channel` (of weights) and `symmetric` (of activations) if they are None.
    `exclude` names ONNX nodes that stay in floating point. Samples are chosen as in
    toolkit.quantization.calibration_data. A batch norm after a convolution is folded into it first.
    A model whose outputs collapse (SQNR below LEAST_SQNR_DB) is written as well, with a warning.

    With `max_drop`, as few of the most sensitive nodes as necessary also stay in floating point, so
    that the drop on the test samples is shown to be at most `max_drop`: percentage points of
    accuracy, or per cent of the mean squared error. Reading a model file may take `timeout_s` each
    time.

    Raises SourceError, IntegrityError, OutputExistsError; UsageError for a model that is not in
    float32 or not in the preset's format; UnknownNameError and UsageError for invalid options;
    ParityError if a weight is not found in the written file; CheckFailedError if no graph meets
    `max_drop`. If it raises, nothing is written to `out`.
    """
    target, listener = Path(out), progress or Silent()
    refuse_existing(target)
    if max_drop is not None:
        check_max_drop(max_drop)
    with toolkit_imports():
        parse(method)
    recipe = recipe_for(
        preset,
        symmetric=symmetric,
        per_channel=per_channel,
        vnni=has_vnni(),
    )
    source = open_artifact(artifact)
    _require_float(source, PRESETS[preset].takes)
    rows = pick_rows(
        source,
        data,
        samples=samples,
        seed=seed,
        settings=data_settings,
        directory=None if data_dir is None else Path(data_dir),
        progress=listener,
    )
    how = How(method=method, recipe=recipe, excluded=exclude, progress=listener)
    if preset == LITERT:
        how.require_nothing(symmetric, per_channel, max_drop)
    elif max_drop is not None:
        runtime = RUNS_ON.get(preset, preset)
        how.accuracy = _accuracy(source, data, data_settings, data_dir, runtime, max_drop, listener)
    warnings = [rows.note] if rows.note else []
    if rows.left_out:
        warnings.append(
            f"{rows.left_out} training rows of {data} are test rows too, and were left out."
        )
    with new_directory(target) as partial, scratch_directory() as scratch:
        write = write_litert if preset == LITERT else write_onnx
        written = write(source, partial, scratch, rows.used, how)
        made = saved(partial, source, written.options, written.entry)
        outputs = _compared(source, made, rows.held, preset == "onnxruntime", listener)
        warnings += _collapsed(outputs)
        done = Calibration(
            artifact=made,
            method=method,
            preset=preset,
            recipe=recipe,
            seed=seed,
            excluded=tuple(exclude),
            rows=rows,
            tensors=written.tensors,
            weights=written.weights,
            outputs=outputs,
            mixture=written.mixture,
            kept=how.kept,
            warnings=tuple(warnings),
        )
        for node, why in how.kept.items():
            listener.note(f"{node} stays in float: {why}")
        for warning in warnings:
            listener.note(f"warning: {warning}")
        write_document(partial / RECORD, seal(SCHEMA, done.record()))
        options = {**written.options, "calibration": done.settings()}
        saved(partial, source, options, written.entry)
    return replace(done, artifact=Artifact.load(target))


def _require_float(source: Artifact, format: Format) -> None:
    if source.format is not format:
        raise UsageError(
            f"{source.path} is {source.format}, and what is calibrated is {format}.",
            hint=f"Export it first: toolkit export … --to {format}.",
        )
    if source.precision != "float32":
        raise UsageError(
            f"{source.path} is {source.precision}, expected float32.",
            hint="Calibrate the float32 model that it was made from.",
        )


def _accuracy(
    source: Artifact,
    data: str,
    settings: Mapping[str, Any] | None,
    directory: str | os.PathLike[str] | None,
    runtime: str,
    max_drop: float,
    progress: Progress,
) -> Accuracy:
    """Return the accuracy requirement. Raises UsageError for samples without labels."""
    place = None if directory is None else Path(directory)
    rows = load_labelled(source, data, settings, place, progress)
    options = session_options(None)
    reference = reference_of(candidates(source), options.threads)
    return Accuracy(
        reference_run=ReferenceRun.of(source, reference, rows, timeout_s=TIMEOUT_S),
        runtime=runtime,
        options=options,
        timeout_s=TIMEOUT_S,
        max_drop=max_drop,
    )


def _compared(
    source: Artifact, made: Artifact, held: SampleSelection, optimize: bool, progress: Progress
) -> Mapping[str, Closeness]:
    """Compare all outputs of two models, and parts of concatenated outputs, on the same samples.

    Outputs are compared batch by batch and not kept. Without `optimize`, the graphs run without
    optimisation: the INT8 kernels of ONNX Runtime, which is not the runtime that the graph is for,
    saturate on a processor without VNNI.
    """
    options = replace(session_options(None), optimize=optimize)
    fixed = source.signature.batch_axis
    size = fixed if isinstance(fixed, int) else MOST_BATCH
    found: dict[str, Comparison] = defaultdict(Comparison)
    with open_files() as files:
        parts = files.output_parts(source)

    def start(artifact: Artifact) -> WorkerProcess:
        worker = WorkerProcess(threads=options.threads, timeout_s=TIMEOUT_S)
        worker.open(REFERENCES[artifact.format], [artifact], options)
        return worker

    with start(source) as reference, start(made) as other:
        for number, feeds in enumerate(held.batches(size)):
            expected, got = reference.run(feeds), other.run(feeds)
            for name, array in expected.items():
                found[name].add(got[name], array)
                for part, places in _parts(name, array, parts):
                    found[part].add(got[name][places], array[places])
            done = min((number + 1) * size, len(held))
            progress.update("compare", done, len(held), held.description)
    return {name: comparison.result() for name, comparison in found.items()}


def _parts(
    name: str, array: np.ndarray, parts: Mapping[str, tuple[int, list[int]]]
) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Yield a name and an index for each part that an output was concatenated from."""
    axis, extents = parts.get(name, (0, []))
    if sum(extents) != (array.shape[axis] if extents else 0):
        return
    stop = 0
    for extent in extents:
        start, stop = stop, stop + extent
        places = [slice(None)] * array.ndim
        places[axis] = slice(start, stop)
        written = [f"{start}:{stop}" if each != slice(None) else ":" for each in places]
        yield f"{name}[{', '.join(written)}]", tuple(places)


def _collapsed(outputs: Mapping[str, Closeness]) -> list[str]:
    return [
        f"OUTPUT {name!r} HAS COLLAPSED: its SQNR is {found.sqnr_db:.1f} dB, expected "
        f"{LEAST_SQNR_DB:g} or more. Try another --method, more --samples, or --exclude nodes."
        for name, found in outputs.items()
        if not found.sqnr_db >= LEAST_SQNR_DB
    ]
