"""Write an INT8 model, an ONNX graph or a LiteRT file, and check its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from calibration.presets import Recipe
from exporters.base import ExportOptions
from exporters.proof.weight_parity import WeightParity
from toolkit.core.artifact import Artifact, Format, parents_of
from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.errors import ParityError, UsageError
from toolkit.core.progress import Progress, Silent
from toolkit.core.specs import Feeds
from toolkit.exporting.check_layers import exposed
from toolkit.exporting.check_outputs import compare
from toolkit.measuring.machine.environment import session_options
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.quantization.calibration_data import SampleSelection
from toolkit.quantization.mixed_precision import Accuracy, Mixture, fewest_in_float
from toolkit.quantization.quantizer_client import Quantiser
from toolkit.sources.inputs import InputRequest, extents_of
from toolkit.sources.isolated_backend import open_files
from toolkit.sources.resolve import open_artifact

ENTRY = "model.onnx"
LITERT = "litert"
MODULE = "toolkit.quantization.calibration_worker"
TIMEOUT_S = 3600.0
PASSES = ("store-constants", "fold-batch-norm")
MOST_BYTES = 64 << 20  # of all inner tensors of a batch
MOST_BATCH = 64
SENSITIVITY_ROWS = 64  # samples on which the sensitivity of nodes is measured


@dataclass(kw_only=True)
class How:
    """Settings for quantising a model."""

    method: str
    recipe: Recipe
    excluded: Sequence[str]
    progress: Progress
    accuracy: Accuracy | None = None
    kept: Mapping[str, str] = field(default_factory=dict)  # nodes in float by default, and why

    def require_nothing(
        self, symmetric: bool | None, per_channel: bool | None, max_drop: float | None
    ) -> None:
        """Raise UsageError if an option is given that TensorFlow's converter decides itself."""
        given = {
            "--method": self.method != "minmax",
            "--exclude": bool(self.excluded),
            "--symmetric or --asymmetric": symmetric is not None,
            "--per-channel": per_channel is not None,
            "--search": max_drop is not None,
        }
        for name in (name for name, found in given.items() if found):
            raise UsageError(
                f"Got {name} with --preset {LITERT}, for which TensorFlow's converter decides.",
                hint="Leave it out, or calibrate the ONNX graph for another preset.",
            )


@dataclass(frozen=True, kw_only=True)
class Written:
    """Quantised model that was written: where each weight went, and options for the manifest."""

    weights: WeightParity
    options: Json
    entry: str = ENTRY
    tensors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    mixture: Mixture | None = None


def write_onnx(
    source: Artifact, directory: Path, scratch: Path, used: SampleSelection, how: How
) -> Written:
    request = InputRequest(dims=extents_of(source.signature, used.feeds(0, 1)))
    folded, passes = _folded(source, scratch / "float", request)
    mixture = None
    with _quantiser(folded, scratch / "exposed", used, how) as (quantiser, tensors):
        if how.accuracy is None:
            quantiser.write(directory / ENTRY)
        else:
            mixture = fewest_in_float(
                quantiser,
                lambda: saved(directory, source, {}),
                directory / ENTRY,
                scratch,
                _for_sensitivity(source, used),
                how.accuracy,
                how.progress,
            )
    weights = _proved(folded, Format.ONNX, directory / ENTRY)
    return Written(weights=weights, options={"passes": passes}, tensors=tensors, mixture=mixture)


def write_litert(
    source: Artifact, directory: Path, scratch: Path, used: SampleSelection, how: How
) -> Written:
    """Write an INT8 LiteRT file, and check its weights via a float32 LiteRT file.

    Batch norms are already folded in the float32 file. Its weights are compared with those of
    `source`, and those of the INT8 file with those of the float32 file.
    """
    between = scratch / "float"
    between.mkdir()
    with open_files() as files:
        how.progress.note("convert to LiteRT in float32, and its weights")
        exported = files.export(LITERT, source, between, ExportOptions())
        _proved(source, Format.LITERT, between / exported.entry)
        plain = open_artifact(between / exported.entry)
        how.progress.note(f"quantise on {len(used)} {used.description}")
        done = files.quantise_for_litert(source, directory, used.feeds(0, len(used)))
        weights = _proved(plain, Format.LITERT, directory / done.entry)
    return Written(weights=weights, options=dict(done.options), entry=done.entry)


def _folded(
    source: Artifact, directory: Path, request: InputRequest
) -> tuple[Artifact, list[Json]]:
    """Return a copy with stored weights and folded batch norms, and the changes of all passes.

    The changes include those of earlier passes over `source`.
    """
    for name in source.files:
        source.copy_file(name, directory / name)
    with open_files() as files:
        found, _, _ = files.rewrite(source, PASSES, directory / source.entry)
    changes = [change for change in found if change["changed"]]
    copy = open_artifact(directory / source.entry)
    if any("opset" in change for change in changes):
        _require_same(source, copy, request)
    return copy, [*source.options.get("passes", ()), *changes]


def _require_same(source: Artifact, converted: Artifact, request: InputRequest) -> None:
    """Raise ParityError if ONNX's version converter changed the outputs of the model."""
    outputs = compare(source, converted, "onnxruntime", request, progress=Silent())
    if not outputs.passed:
        raise ParityError(
            f"ONNX's version converter changed {source.path}: {outputs.worst.judgement.reason}. "
            "Nothing was written.",
            hint="Export the model with opset 13 or later.",
        )


@contextmanager
def _quantiser(
    folded: Artifact, scratch: Path, used: SampleSelection, how: How
) -> Iterator[tuple[Quantiser, Mapping[str, Mapping[str, float]]]]:
    """Calibrate, and yield a Quantiser with the range and the statistics of each tensor.

    Sets `how.kept` to the nodes that stay in floating point by default.
    """
    threads = session_options(None).threads
    with WorkerProcess(threads=threads, timeout_s=TIMEOUT_S, module=MODULE) as worker:
        worker.ask({"command": "check", "source": str(folded.path), "excluded": list(how.excluded)})
        giving, makers = exposed(folded, scratch)
        worker.ask(
            {
                "command": "open",
                "artifact": encode(giving),
                "threads": threads,
                "order": list(makers),
            }
        )
        _collect(worker, giving, used, how.progress)
        asked = {"command": "ranges", "method": how.method, "symmetric": how.recipe.symmetric}
        tensors: dict[str, dict[str, float]] = worker.ask(asked)[0]["tensors"]
        ranges = {n: {"low": t["low"], "high": t["high"]} for n, t in tensors.items()}
        asked = {"command": "kept", "source": str(folded.path), "ranges": ranges}
        kept: dict[str, str] = worker.ask(asked)[0]["nodes"]
        how.kept = {name: why for name, why in kept.items() if name not in how.excluded}
        quantiser = Quantiser(
            worker=worker,
            source=folded,
            ranges=ranges,
            recipe=how.recipe,
            excluded=[*how.excluded, *how.kept],
            threads=threads,
        )
        yield quantiser, tensors


def _for_sensitivity(source: Artifact, used: SampleSelection) -> list[Feeds]:
    """Return a few calibration samples; choosing nodes by test samples would bias the test."""
    fixed = source.signature.batch_axis
    size = fixed if isinstance(fixed, int) else SENSITIVITY_ROWS
    return list(used.first(max(size, SENSITIVITY_ROWS) // size * size).batches(size))


def _collect(
    worker: WorkerProcess, giving: Artifact, used: SampleSelection, progress: Progress
) -> None:
    """Collect statistics over all samples, in batches whose inner tensors fit in MOST_BYTES."""
    fixed = giving.signature.batch_axis
    size, done = fixed if isinstance(fixed, int) else 1, 0
    while done < len(used):
        feeds = used.feeds(done, size)
        took = worker.ask({"command": "collect"}, feeds)[0]["bytes"]
        done += min(size, len(used) - done)
        if not isinstance(fixed, int) and size == 1:
            size = max(1, min(MOST_BATCH, MOST_BYTES // max(took, 1)))
        progress.update("calibrate", done, len(used), used.description)


def _proved(source: Artifact, format: Format, path: Path) -> WeightParity:
    """Return where each weight of a float model is in the file at `path`.

    Raises ParityError if a weight is missing or altered, or if the file has an extra one.
    """
    with open_files() as files:
        weights = files.weight_parity(source, format, path)
    if not weights.passed:
        named = "; ".join(f"{t.name} is {t.match}" for t in weights.failures()[:5])
        raise ParityError(
            f"Weight parity failed: {weights.explained} of {weights.total} weights are explained "
            f"in the quantised graph; {named}. Nothing was written.",
            hint="The quantiser changed the model. Report it with the versions from `toolkit "
            "doctor`.",
        )
    return weights


def saved(directory: Path, source: Artifact, options: Json, entry: str = ENTRY) -> Artifact:
    """Save the manifest of the INT8 model, with the float model as parent; return its artifact."""
    return Artifact.save(
        directory,
        model=source.model,
        format=Format.ONNX if entry == ENTRY else Format.LITERT,
        precision="int8",
        signature=source.signature,
        entry=entry,
        parents=parents_of(directory, source),
        options=options,
    )
