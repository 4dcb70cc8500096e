"""What a model should give: by the float32 reference, and by an oracle in float64."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from runtimes import FOR_CUDA
from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import SessionError, ToolkitError, UnavailableError, WorkerTimeoutError
from toolkit.core.session import SessionOptions
from toolkit.core.specs import Feeds, Outputs, Signature
from toolkit.core.temporary import scratch_directory
from toolkit.measuring.client import WorkerProcess
from toolkit.measuring.environment import has_vnni, session_options
from toolkit.parity.judging import beyond_rounding, departs
from toolkit.steps.files import open_files
from toolkit.steps.reference import Opening, reference_of
from toolkit.steps.sources import open_artifact

IN_DOUBLE = {
    Format.CHECKPOINT: "torch",
    Format.TORCH_EXPORT: "torch-export",
    Format.KERAS: "tensorflow",
    Format.SAVEDMODEL: "tensorflow",
}
"""By the form that is nearest to the source, the runtime that computes it in float64."""
EVALUATOR = "onnx-reference"
TIMEOUT_S = 600.0
LONGEST_S = 60.0  # of the oracle, for all inputs together


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a model gives for sets of feeds, by the reference and by the oracle.

    `exact` has None for each of the feeds that the oracle has not run on, and `remark` says why.
    `failed` says why the reference cannot run on some of the sets, such as those of a batch beyond
    what a captured program allows; their outputs are empty.
    """

    reference: str
    outputs: Sequence[Sequence[Outputs]]
    oracle: str | None
    exact: Sequence[Sequence[Outputs | None]]
    remark: str | None
    failed: Mapping[int, str] = field(default_factory=dict)


def expected_of(
    forms: Sequence[Artifact],
    sets: Sequence[Sequence[Feeds]],
    worker: WorkerProcess | None = None,
) -> Expected:
    """Runs the reference for a model, then its oracle, for as long as that may take, in the process
    of `worker`, or one of their own.

    Raises SessionError if the reference fails on all sets of feeds.
    """
    threads = session_options(None).threads
    if worker is None:
        with WorkerProcess(threads=threads, timeout_s=TIMEOUT_S) as worker:
            return expected_of(forms, sets, worker)
    before = worker.timeout_s
    try:
        return _expected(forms, sets, threads, worker)
    finally:
        worker.timeout_s = before


def _expected(
    forms: Sequence[Artifact],
    sets: Sequence[Sequence[Feeds]],
    threads: int,
    worker: WorkerProcess,
) -> Expected:
    reference = reference_of(forms, threads)
    worker.timeout_s = TIMEOUT_S
    worker.open(reference.runtime, reference.forms, reference.options)
    outputs, failed = _run(worker, sets)
    sets = [[] if place in failed else feeds for place, feeds in enumerate(sets)]
    exact: list[list[Outputs | None]] = [[None] * len(feeds) for feeds in sets]
    name = remark = None
    with scratch_directory() as scratch:
        try:
            oracle = _oracle_of(forms, threads, scratch)
            done, wanted = _fill(worker, exact, oracle, sets), sum(map(len, sets))
            if oracle.runtime == EVALUATOR:
                _check_oracle(forms, threads, scratch, sets, outputs, exact)
        except ToolkitError as error:
            remark = error.problem.rstrip(".")
            exact = [[None] * len(feeds) for feeds in sets]
        else:
            name = oracle.name if done else None
            if done < wanted:
                remark = f"{oracle.name} ran on {done} of {wanted} inputs in {LONGEST_S:g} s"
    return Expected(
        reference=reference.runtime,
        outputs=outputs,
        oracle=name,
        exact=exact,
        remark=remark,
        failed=failed,
    )


def graph_in_double(
    artifact: Artifact, feeds: Feeds, outputs: Outputs, worker: WorkerProcess
) -> Outputs | None:
    """What ONNX's reference evaluator gives for a graph in float64, in the process of `worker`.

    `outputs` are those of a runtime in float32. None where the evaluator cannot run the graph,
    takes too long, or disagrees with that runtime by more than rounding.
    """
    threads, before = session_options(None).threads, worker.timeout_s
    exact: list[list[Outputs | None]] = [[None]]
    try:
        with scratch_directory() as scratch:
            graph = _oracle_of([artifact], threads, scratch)
            _fill(worker, exact, graph, [[feeds]])
            _check_oracle([artifact], threads, scratch, [[feeds]], [[outputs]], exact)
    except ToolkitError:
        return None
    finally:
        worker.timeout_s = before
    return exact[0][0]


def outputs_of(
    runtime: str, artifact: Artifact, sets: Sequence[Sequence[Feeds]]
) -> list[list[Outputs]]:
    """What an artifact gives on a runtime, as it is deployed."""
    return outputs_and_precision_of(runtime, artifact, sets)[0]


def outputs_and_precision_of(
    runtime: str, artifact: Artifact, sets: Sequence[Sequence[Feeds]]
) -> tuple[list[list[Outputs]], str | None]:
    """The same, and the precision that it ran in: asked of runtimes for GPUs, where one may have no
    switch for TF32; None of all others.

    An INT8 graph on ONNX Runtime is run as it is written where the processor's products saturate.
    """
    options = session_options(None)
    if (artifact.precision, runtime) == ("int8", "onnxruntime") and not has_vnni():
        options = replace(options, optimize=False)
    opening = Opening(runtime=runtime, name=runtime, forms=[artifact], options=options)
    with _opened(opening) as worker:
        outputs = _outputs(worker, sets)
        return outputs, worker.provenance().precision if runtime in FOR_CUDA else None


def _run(
    worker: WorkerProcess, sets: Sequence[Sequence[Feeds]]
) -> tuple[list[list[Outputs]], dict[int, str]]:
    """The outputs for each of the sets, and why it failed on some of them."""
    found: list[list[Outputs]] = []
    failed: dict[int, SessionError] = {}
    for place, feeds in enumerate(sets):
        try:
            found.append([worker.run(one) for one in feeds])
        except SessionError as error:
            failed[place] = error
            found.append([])
    if len(failed) == len(sets):
        raise next(iter(failed.values()))
    return found, {place: error.problem for place, error in failed.items()}


@contextmanager
def _opened(opening: Opening) -> Iterator[WorkerProcess]:
    with WorkerProcess(threads=opening.options.threads, timeout_s=TIMEOUT_S) as worker:
        worker.open(opening.runtime, opening.forms, opening.options)
        yield worker


def _outputs(worker: WorkerProcess, sets: Sequence[Sequence[Feeds]]) -> list[list[Outputs]]:
    return [[worker.run(one) for one in feeds] for feeds in sets]


def _fill(
    worker: WorkerProcess,
    exact: list[list[Outputs | None]],
    oracle: Opening,
    sets: Sequence[Sequence[Feeds]],
) -> int:
    """Runs the oracle, the smallest feeds first, while those that follow can be expected to be
    done in time; on how many it ran."""
    signature = oracle.forms[0].signature
    todo = sorted(
        (sum(array.nbytes for array in one.values()), place, number)
        for place, feeds in enumerate(sets)
        for number, one in enumerate(feeds)
    )
    done, spent, last = 0, 0.0, (0.0, 1)  # seconds for so many bytes
    worker.timeout_s = LONGEST_S
    worker.open(oracle.runtime, oracle.forms, oracle.options)
    for size, place, number in todo:
        if spent + last[0] * size / last[1] > LONGEST_S:
            break
        start = time.monotonic()
        try:
            exact[place][number] = worker.run(_in_dtypes(sets[place][number], signature))
        except WorkerTimeoutError:
            break
        last = (time.monotonic() - start, max(size, 1))
        spent, done = spent + last[0], done + 1
    return done


def _in_dtypes(feeds: Feeds, signature: Signature) -> Feeds:
    """Feeds of float32 as the float64 that a signature takes."""
    dtypes = {spec.name: spec.dtype for spec in signature.inputs}
    return {
        name: array.astype(np.float64) if dtypes.get(name) == "float64" else array
        for name, array in feeds.items()
    }


def _oracle_of(artifacts: Sequence[Artifact], threads: int, directory: Path) -> Opening:
    """The same model in float64: torch's or TensorFlow's if there is one, else an ONNX graph as the
    standard defines it, written into `directory`.

    Raises UnavailableError where nothing runs any of the forms so, SourceError for a graph that
    cannot be had in float64.
    """
    formats = [artifact.format for artifact in artifacts]
    options = SessionOptions(threads=threads, optimize=False)
    for format, runtime in IN_DOUBLE.items():
        if format in formats:
            return Opening(
                runtime=runtime,
                name=f"{runtime} in float64",
                forms=artifacts,
                options=replace(options, tuning={"dtype": "float64"}),
            )
    if Format.ONNX not in formats:
        raise UnavailableError(
            f"Nothing here runs {formats[0]} in float64.", hint="Give the form that it was made of."
        )
    with open_files() as files:
        path = directory / "float64.onnx"
        files.write_for_evaluator(artifacts[formats.index(Format.ONNX)], path, double=True)
    return Opening(
        runtime=EVALUATOR,
        name="ONNX's reference evaluator in float64",
        forms=[open_artifact(path)],
        options=options,
    )


def _check_oracle(
    forms: Sequence[Artifact],
    threads: int,
    directory: Path,
    sets: Sequence[Sequence[Feeds]],
    outputs: Sequence[Sequence[Outputs]],
    exact: Sequence[Sequence[Outputs | None]],
) -> None:
    """Raise UnavailableError if the evaluator and the reference disagree by more than rounding.

    Two implementations of one graph may differ by what rounding does to it. How much that is, the
    evaluator itself shows: its float32 result beside its float64 result has the same faults, if it
    has any, and other roundings. It is run in float32 only where the reference is further from the
    float64 result than the table of tolerances allows.
    """
    suspects = [
        (sum(array.nbytes for array in feeds.values()), case, number)
        for case, (several, given, expected) in enumerate(zip(sets, outputs, exact, strict=True))
        for number, feeds in enumerate(several)
        if (double := expected[number]) is not None and departs(given[number], double)
    ]
    if not suspects:
        return
    _, case, number = min(suspects)
    path = directory / "float32.onnx"
    with open_files() as files:
        form = next(form for form in forms if form.format is Format.ONNX)
        files.write_for_evaluator(form, path, double=False)
    single = Opening(
        runtime=EVALUATOR,
        name=EVALUATOR,
        forms=[open_artifact(path)],
        options=SessionOptions(threads=threads, optimize=False),
    )
    with _opened(single) as worker:
        found = worker.run(sets[case][number])
    double = exact[case][number]
    assert double is not None
    if reason := beyond_rounding(outputs[case][number], found, double):
        raise UnavailableError(
            f"ONNX's reference evaluator is not used: {reason}.",
            hint="The outputs are compared with those of the float32 reference instead.",
        )
