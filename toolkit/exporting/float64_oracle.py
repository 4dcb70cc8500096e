"""Expected outputs of a model, from the float32 reference and from a float64 oracle."""

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
from toolkit.measuring.machine.environment import has_vnni, session_options
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.parity.judging import beyond_rounding, departs
from toolkit.sources.isolated_backend import open_files
from toolkit.sources.reference_runtime import Opening, reference_of
from toolkit.sources.resolve import open_artifact

IN_DOUBLE = {
    Format.CHECKPOINT: "torch",
    Format.TORCH_EXPORT: "torch-export",
    Format.KERAS: "tensorflow",
    Format.SAVEDMODEL: "tensorflow",
}
"""Runtime that computes each format in float64; the format nearest to the source comes first."""
EVALUATOR = "onnx-reference"
TIMEOUT_S = 600.0
LONGEST_S = 60.0  # limit of the oracle, over all inputs


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Expected outputs of a model for sets of feeds: `reference`'s, and in `exact` the oracle's.

    `exact` has None for feeds on which the oracle did not run, and `remark` says why. `failed` maps
    the index of a set to the reason why the reference cannot run on it, such as a batch beyond what
    a captured program allows; the outputs of that set are empty.
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
    """Run the reference of a model, and then its oracle within LONGEST_S.

    Both run in the process of `worker`, or in a new one by default. Raises SessionError if the
    reference fails on all sets of feeds.
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
    """Evaluate a graph in float64 with ONNX's reference evaluator, in the process of `worker`.

    `outputs` are those of a runtime in float32. Return None if the evaluator cannot run the graph,
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
    """Return the outputs of an artifact on a runtime, opened as for deployment."""
    return outputs_and_precision_of(runtime, artifact, sets)[0]


def outputs_and_precision_of(
    runtime: str, artifact: Artifact, sets: Sequence[Sequence[Feeds]]
) -> tuple[list[list[Outputs]], str | None]:
    """Return the outputs of an artifact on a runtime, and the precision in which it ran.

    The precision is None except for GPU runtimes, some of which cannot turn TF32 off. ONNX Runtime
    runs an INT8 graph without optimisation on a processor without VNNI, whose INT8 products
    saturate.
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
    """Return the outputs for each set, and the reason for each set that failed, by its index.

    Raises SessionError if all sets failed.
    """
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
    """Run the oracle, store its outputs in `exact`, and return the number of feeds that it ran on.

    The smallest feeds come first. The oracle stops before feeds that would exceed LONGEST_S, which
    it estimates from their size and the speed of the last run, and at a run that times out.
    """
    signature = oracle.forms[0].signature
    todo = sorted(
        (sum(array.nbytes for array in one.values()), place, number)
        for place, feeds in enumerate(sets)
        for number, one in enumerate(feeds)
    )
    done, spent, last = 0, 0.0, (0.0, 1)  # seconds and bytes of the last run
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
    """Return the feeds, cast to float64 where the signature takes float64."""
    dtypes = {spec.name: spec.dtype for spec in signature.inputs}
    return {
        name: array.astype(np.float64) if dtypes.get(name) == "float64" else array
        for name, array in feeds.items()
    }


def _oracle_of(artifacts: Sequence[Artifact], threads: int, directory: Path) -> Opening:
    """Return how to run the model in float64.

    A variant for torch or TensorFlow comes first. Otherwise the ONNX graph is written to
    `directory` in float64, for ONNX's reference evaluator. Raises UnavailableError if no variant
    can run in float64, SourceError for a graph that cannot be converted to float64.
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

    Two implementations of one graph may differ by rounding. The evaluator itself shows by how much:
    its float32 and float64 results share its faults, if it has any, and differ in rounding. It runs
    in float32 only if the reference is further from the float64 result than the table of tolerances
    allows, and then on the smallest such feeds.
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
