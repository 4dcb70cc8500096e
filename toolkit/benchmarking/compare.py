"""Compare the speed of two artifacts, measured in turn, or of two stored results."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from toolkit.benchmarking.row_run import Entry
from toolkit.benchmarking.runner import Group, measure_groups
from toolkit.benchmarking.settings import Settings
from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import StorageError, ToolkitError, UsageError
from toolkit.core.measurement import Result
from toolkit.core.progress import Progress, Silent
from toolkit.measuring.figures.comparison import (
    TOLERANCE,
    Comparison,
    apart,
    check_tolerance,
    differing_circumstances,
    paired,
    refuse_other_machine,
)
from toolkit.measuring.timing.engine import Procedure
from toolkit.results import store
from toolkit.results.find import find_result
from toolkit.sources.inputs import InputRequest, InputSource, input_source, resolve_batches
from toolkit.sources.isolated_backend import sharing_files
from toolkit.sources.resolve import (
    candidates,
    open_artifact,
)
from toolkit.sources.runtime_selection import known_runtimes, nothing_runs, remarks_on

Named = str | os.PathLike[str]

# Runtime of each format; of several, the one with the fewest dependencies.
DEFAULT_RUNTIME = {
    Format.CHECKPOINT: "torch",
    Format.ONNX: "onnxruntime",
    Format.TORCH_EXPORT: "torch-export",
    Format.AOTINDUCTOR: "aotinductor",
    Format.OPENVINO: "openvino",
    Format.TENSORRT: "tensorrt",
    Format.TENSORRT_RTX: "tensorrt-rtx",
    Format.TRIPY: "tripy",
}
RESULT_ID = re.compile(r"\d{8}(T|$)")
APART = (
    "A and B were measured apart: what changed about the machine in between is in no interval. "
    "For a verdict to act on, measure them in turn: toolkit compare ARTIFACT_A ARTIFACT_B."
)


@sharing_files
def compare(
    a: Named,
    b: Named,
    *,
    tolerance: float = TOLERANCE,
    runtimes: Sequence[str] | None = None,
    device: str = "cpu",
    batches: Sequence[int] | None = None,
    scopes: Sequence[str] | None = None,
    threads: int | None = None,
    cpus: Collection[int] | None = None,
    tuning: Mapping[str, Mapping[str, str]] | None = None,
    procedure: Procedure | None = None,
    inputs: InputRequest | None = None,
    timeout_s: float = 300.0,
    allow_fallback: bool = False,
    out: Named = "results",
    progress: Progress | None = None,
) -> Comparison:
    """Compare the speed of B with that of A on each runtime and batch, in turn on the same inputs.

    `tolerance` is the fraction by which B may be slower. The default runtime is that of the format
    in DEFAULT_RUNTIME, such as torch for checkpoints and onnxruntime for ONNX, on `device`. The
    other options are as in `bench`; the result is stored as `out/<id>.json`. Raises what `bench`
    raises, and UsageError for artifacts of different formats or inputs.
    """
    check_tolerance(tolerance)
    sources = [open_artifact(name) for name in (a, b)]
    if sources[0].format is not sources[1].format:
        raise UsageError(
            f"{a} is {sources[0].format}, {b} is {sources[1].format}: no runtime opens both.",
            hint="Compare runtimes on one artifact with toolkit bench ARTIFACT --runtime A,B.",
        )
    if runtimes is None:
        if sources[0].format not in DEFAULT_RUNTIME:
            raise nothing_runs(sources)
        runtimes = [DEFAULT_RUNTIME[sources[0].format]]
    names = known_runtimes(runtimes, sources, device)
    settings = Settings.parse(
        scopes=scopes,
        threads=threads,
        cpus=cpus,
        tuning=tuning,
        procedure=procedure,
        timeout_s=timeout_s,
        allow_fallback=allow_fallback,
    )
    settings.check_runtimes(names)
    request = inputs or InputRequest()
    feeding = input_source(sources[0], request)
    sizes = resolve_batches(sources[0], batches, request)
    for batch in sizes:
        _require_same_inputs(sources, feeding, batch)
    entrants = [candidates(source) for source in sources]
    measure = functools.partial(
        measure_groups,
        [
            Group(
                batch=batch,
                inputs=feeding,
                entries=[Entry(artifacts=artifacts, runtime=name) for artifacts in entrants],
            )
            for batch in sizes
            for name in names
        ],
        settings,
        plan={
            "artifact": str(sources[0].path),
            "artifact_digest": sources[0].digest,
            "against": str(sources[1].path),
            "runtimes": names,
            "batches": sizes,
            "inputs": feeding.description,
        },
        out=Path(out),
        progress=progress or Silent(),
        warnings=[remark for source in sources for remark in remarks_on(source, names)],
    )
    try:
        result = measure()
    except StorageError as error:
        error.result = _measured(error.result, tolerance, [error.path] if error.path else [])
        raise
    return _measured(result, tolerance, [Path(out) / f"{result.id}.json"])


def _measured(result: Result, tolerance: float, paths: Sequence[Path]) -> Comparison:
    return Comparison(
        pairs=paired(result, tolerance),
        paired=True,
        tolerance=tolerance,
        warnings=result.warnings,
        results=[str(path) for path in paths],
    )


def compare_results(
    a: Named, b: Named, *, tolerance: float = TOLERANCE, directory: Named = "results"
) -> Comparison:
    """Compare the rows of two stored results that have the same runtime, options and batch.

    Nothing is measured. Raises UsageError for results of different machines or threads,
    UnknownNameError, SourceError, IntegrityError.
    """
    check_tolerance(tolerance)
    paths = [find_result(os.fspath(name), Path(directory)) for name in (a, b)]
    first, second = (store.load(path) for path in paths)
    refuse_other_machine(first, second)
    return Comparison(
        pairs=apart(first, second, tolerance),
        paired=False,
        tolerance=tolerance,
        warnings=[
            APART,
            *differing_circumstances(first, second),
            *(f"A: {warning}" for warning in first.warnings),
            *(f"B: {warning}" for warning in second.warnings),
        ],
        results=[str(path) for path in paths],
    )


def are_results(a: Named, b: Named) -> bool:
    """Return whether both names are stored results rather than artifacts.

    Raises UsageError for one of each.
    """
    kinds = [_names_result(os.fspath(name)) for name in (a, b)]
    if kinds[0] == kinds[1]:
        return kinds[0]
    result, artifact = (a, b) if kinds[0] else (b, a)
    raise UsageError(
        f"{result} is a stored result, and {artifact} is none.",
        hint="Give two artifacts, or two results (see toolkit results list).",
    )


def _names_result(name: str) -> bool:
    return name.endswith(".json") or (RESULT_ID.match(name) is not None and not Path(name).exists())


def _require_same_inputs(sources: Sequence[Artifact], feeding: InputSource, batch: int) -> None:
    a, b = sources
    for feeds in feeding.sets(batch):
        try:
            b.signature.check(feeds)
        except ToolkitError as error:
            raise UsageError(
                f"{b.path} does not take the inputs of {a.path}: {error.problem}",
                hint="Only artifacts that take the same inputs can be compared.",
            ) from error
