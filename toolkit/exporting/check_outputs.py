"""Compare the outputs of two variants of a model, judged by a float64 oracle."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from toolkit.core.artifact import Artifact, Format
from toolkit.core.documents import Json
from toolkit.core.progress import Progress, Silent
from toolkit.core.specs import Feeds, Outputs, Signature, convert_feeds, paired
from toolkit.exporting.check_layers import Layers, compare_layers
from toolkit.exporting.float64_oracle import (
    Expected,
    expected_of,
    graph_in_double,
    outputs_and_precision_of,
)
from toolkit.parity.judging import Judgement, judge, judge_graph, relative_errors, worst
from toolkit.sources.inputs import (
    InputRequest,
    implied_batch,
    input_source,
    noise_source,
)
from toolkit.sources.isolated_backend import READING_S, open_files, sharing_files
from toolkit.sources.resolve import candidates, open_artifact
from toolkit.sources.runtime_selection import known_runtimes

BATCHES = (1, 3, 64)
PLANS = ((4, BATCHES), (2, (1, 3, 16)), (1, (1, 3, 8)), (1, (1, 2)))
"""Sets of inputs per batch, and batches; the first plan within OPERATIONS is used, else the
last."""
GRAPH_OPERATIONS = 3e8  # limit for one pass of ONNX's reference evaluator
OPERATIONS = 3e9
"""Limit for matrix products and convolutions over all inputs; a fraction of a second on a CPU."""
EDGES = 4  # passes over single sets, in addition to those of the plan
GRAPH = "the graph in float64"
ZEROS = "zeros"
LARGE = 1e3  # factor applied to standard normal values
OTHER = (10.0, 100.0, 0.1)  # more factors, if rounding makes all other cases inconclusive
TIMES = "random values times {:g}"
Set = tuple[str, int, list[Feeds]]  # description, batch, inputs
CONSTANT = (
    "warning: an output is the same for all inputs that were tried, so that it proves little: give "
    "others with --data or --inputs, or look whether the model is what it should be."
)
FAILED = (
    "warning: the model itself does not run on {what} at batch {batch}, which is left out: {why}"
)
TF32 = (
    "warning: {runtime} multiplied float32 as TF32, which it cannot turn off: the outputs are held "
    "to the bounds of that."
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Result for a set of inputs of one batch: the worst judgement, and in `feeds` its inputs."""

    inputs: str
    batch: int
    judgement: Judgement
    feeds: Feeds = field(default_factory=dict, repr=False, compare=False)

    def to_json(self) -> Json:
        return {"inputs": self.inputs, "batch": self.batch, **self.judgement.to_json()}


@dataclass(frozen=True, kw_only=True)
class OutputParity:
    """The outputs of an artifact on `runtime`, judged by `oracle` and compared with `reference`.

    The bounds are those of `precision`. `remark` says why the oracle did not run, or not on all
    inputs. `not_run` says that a variant made from the artifact cannot run here, so that these are
    not its outputs. `operations` are those of matrix products and convolutions in a pass over one
    sample, by which the batches are chosen; None if they were not counted.
    """

    artifact: Artifact
    runtime: str
    precision: str
    reference: str
    oracle: str | None
    cases: tuple[Case, ...]
    remark: str | None = None
    not_run: str | None = None
    operations: int | None = None

    @property
    def passed(self) -> bool:
        """Whether no case failed and at least one is conclusive."""
        judged = [case.judgement for case in self.cases]
        return all(one.passed for one in judged) and any(one.conclusive for one in judged)

    @property
    def worst(self) -> Case:
        """The first failed case, else the first inconclusive, else the one nearest its bound."""
        found = worst([case.judgement for case in self.cases])
        return next(case for case in self.cases if case.judgement is found)

    def to_json(self) -> Json:
        return {
            "passed": self.passed,
            "runtime": self.runtime,
            "precision": self.precision,
            "reference": self.reference,
            "oracle": self.oracle,
            "remark": self.remark,
            "not_run": self.not_run,
            "operations": self.operations,
            "cases": [case.to_json() for case in self.cases],
        }


@dataclass(frozen=True, kw_only=True)
class OutputComparison:
    """Comparison of the outputs of B with those of A, and of inner tensors if requested."""

    a: Artifact
    outputs: OutputParity
    layers: Layers | None = None

    def to_json(self) -> Json:
        return {
            "schema": "toolkit.parity-outputs/1",
            "a": {"path": str(self.a.path), "format": self.a.format, "digest": self.a.digest},
            "b": {
                "path": str(self.outputs.artifact.path),
                "format": self.outputs.artifact.format,
                "digest": self.outputs.artifact.digest,
            },
            **self.outputs.to_json(),
            "layers": self.layers and self.layers.to_json(),
        }


@sharing_files
def parity_outputs(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    runtime: str | None = None,
    inputs: InputRequest | None = None,
    layers: bool = False,
    timeout_s: float = READING_S,
    progress: Progress | None = None,
) -> OutputComparison:
    """Compare the outputs of B on `runtime` with those of A on its reference runtime.

    `runtime` is by default the first that opens B. With `layers`, also compare the inner tensors,
    on one of the inputs. Each reading of a model file may take `timeout_s`.

    Raises SourceError, IntegrityError, UnavailableError; FeedError if B takes other inputs.
    """
    first, second = open_artifact(a), open_artifact(b)
    chosen = runtime or known_runtimes(None, [second])[0]
    request = inputs or InputRequest()
    outputs = compare(first, second, chosen, request, progress=progress or Silent())
    if not layers:
        return OutputComparison(a=first, outputs=outputs)
    _, sets, _ = _inputs(first, second, request)
    _, _, (feeds, *_) = sets[0]
    found = compare_layers(
        first, second, runtime, feeds, convert_feeds(feeds, first.signature, second.signature)
    )
    return OutputComparison(a=first, outputs=outputs, layers=found)


def compare(
    given: Artifact,
    artifact: Artifact,
    runtime: str,
    request: InputRequest,
    *,
    progress: Progress,
) -> OutputParity:
    """Compare `artifact` on `runtime` with the reference of `given`, at several batches.

    The inputs are those requested; unless they come from a file, also random values and, for
    unbounded inputs, zeros and large values. The more operations a sample takes, the fewer samples
    are run.
    """
    paired(given.signature.inputs, artifact.signature.inputs)  # raises before anything runs
    operations, sets, further = _inputs(given, artifact, request)
    forms = reference_forms(given)
    trial = _Trial(given=given, artifact=artifact, runtime=runtime, forms=forms, progress=progress)
    truth, precision, cases = trial.run(sets)
    decided = any(not c.judgement.passed or c.judgement.conclusive for c in cases)
    if further and not decided:
        cases += trial.run(further)[2]
    if operations is not None and operations * sets[0][1] <= GRAPH_OPERATIONS:
        cases += trial.graph(sets[0], truth, cases)
    return OutputParity(
        artifact=artifact,
        runtime=runtime,
        precision=precision,
        reference=truth.reference,
        oracle=truth.oracle,
        cases=tuple(cases),
        remark=truth.remark,
        operations=operations,
    )


def reference_forms(given: Artifact) -> Sequence[Artifact]:
    """Return the variants from which the reference of an artifact is chosen.

    An INT8 artifact is compared with itself, because the error of quantisation is not measured
    here.
    """
    return [given] if given.precision == "int8" else candidates(given)


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """Comparison of `artifact` on `runtime` with the reference and the oracle of `forms`."""

    given: Artifact
    artifact: Artifact
    runtime: str
    forms: Sequence[Artifact]
    progress: Progress

    def run(self, sets: Sequence[Set]) -> tuple[Expected, str, list[Case]]:
        """Return the expected outputs, the precision that ran, and a case for each set of inputs.

        A set on which the model itself fails has no case.
        """
        given, artifact = self.given, self.artifact
        names = paired(artifact.signature.outputs, given.signature.outputs)
        with open_files() as files:  # its process has already imported the framework
            worker = files.process()
            truth = expected_of(self.forms, [feeds for _, _, feeds in sets], worker)
            if worker.answers:  # False if the oracle timed out
                worker.release()
        for place, why in truth.failed.items():
            what, batch, _ = sets[place]
            self.progress.note(FAILED.format(what=what, batch=batch, why=why))
        sets = [one for place, one in enumerate(sets) if place not in truth.failed]
        expected = [one for place, one in enumerate(truth.outputs) if place not in truth.failed]
        doubles = [one for place, one in enumerate(truth.exact) if place not in truth.failed]
        own_sets = [
            [convert_feeds(one, given.signature, artifact.signature) for one in feeds]
            for _, _, feeds in sets
        ]
        found, ran = outputs_and_precision_of(self.runtime, artifact, own_sets)
        got = [[_named(one, names) for one in outputs] for outputs in found]
        precision = artifact.precision
        if (precision, ran) == ("float32", "tf32"):
            precision = "tf32"
            self.progress.note(TF32.format(runtime=self.runtime))
        tried = [outputs for case in expected for outputs in case]
        if not _vary(given.signature, tried):
            self.progress.note(CONSTANT)
        ranges = _ranges(tried) if given.precision == "int8" else None
        rounding = _rounding([what for what, _, _ in sets], expected, doubles)
        cases = []
        for (what, batch, feeds), *outputs in zip(sets, got, expected, doubles, strict=True):
            terms = _equal_terms(what, feeds[0])
            judged = [
                judge(
                    mine,
                    theirs,
                    exact,
                    precision,
                    equal_terms=terms,
                    ranges=ranges,
                    rounding=rounding.get(what),
                )
                for mine, theirs, exact in zip(*outputs, strict=True)
            ]
            verdict = worst(judged)
            place = next(k for k, each in enumerate(judged) if each is verdict)
            cases.append(Case(inputs=what, batch=batch, judgement=verdict, feeds=feeds[place]))
        return truth, precision, cases

    def graph(self, first: Set, truth: Expected, cases: Sequence[Case]) -> list[Case]:
        """Return a case that compares a float32 ONNX graph, run in float64, with the oracle.

        Rounding hides fewer errors there than in what a runtime computes in float32. There is no
        case if another failed, or if the oracle or the graph cannot run.
        """
        what, batch, (feeds, *_) = first
        passed = all(case.judgement.passed for case in cases)
        exact = truth.exact[0][0] if truth.exact[0] else None
        fits = (self.artifact.format, self.artifact.precision) == (Format.ONNX, "float32")
        if not fits or not passed or exact is None:
            return []
        names = paired(self.artifact.signature.outputs, self.given.signature.outputs)
        with open_files() as files:
            worker = files.process()
            found = graph_in_double(
                self.artifact,
                convert_feeds(feeds, self.given.signature, self.artifact.signature),
                {mine: truth.outputs[0][0][theirs] for mine, theirs in names.items()},
                worker,
            )
            if worker.answers:
                worker.release()
        if found is None:
            return []
        judgement = judge_graph(_named(found, names), truth.outputs[0][0], exact)
        if judgement is None:
            return []
        return [Case(inputs=f"{what}, {GRAPH}", batch=batch, judgement=judgement, feeds=feeds)]


def _rounding(
    kinds: Sequence[str],
    expected: Sequence[Sequence[Outputs]],
    doubles: Sequence[Sequence[Outputs | None]],
) -> Mapping[str, float]:
    """Return the largest error of the reference for each kind of inputs on which the oracle ran.

    Errors are relative to the largest value of an output. Kinds are separate because rounding at
    large values says nothing about others.
    """
    found: dict[str, float] = {}
    for kind, outputs, exact in zip(kinds, expected, doubles, strict=True):
        for mine, double in zip(outputs, exact, strict=True):
            errors = [] if double is None else relative_errors(mine, double)
            if errors:
                found[kind] = max(found.get(kind, 0.0), *errors)
    return found


def _inputs(
    given: Artifact, artifact: Artifact, request: InputRequest
) -> tuple[int | None, list[Set], list[Set]]:
    """Return the operations per sample, the sets to run, and sets to add if all are inconclusive.

    An engine is built for a range of batches, and runs at the least, the usual and the largest.
    """
    # Inputs that both accept: the batch of the artifact may be fixed.
    both = replace(given, signature=_fixed(given.signature, artifact.signature))
    source = input_source(both, request, artifact)
    implied = implied_batch(both.signature, request)
    least = implied or 1
    first = source.sets(least)
    operations = _operations(given, artifact, first[0])
    operations = None if operations is None else operations // least
    count, usual = _plan(operations)
    usual = tuple(dict.fromkeys(artifact.options.get("batches") or usual))
    batches = usual if implied is None else (implied,)
    sets = [
        (source.description, batch, (first if batch == least else source.sets(batch))[:count])
        for batch in batches
    ]
    if request.file is not None:
        return operations, sets, []
    noise = noise_source(both, request, artifact)
    batch = batches[min(1, len(batches) - 1)]
    drawn = noise.sets(batch)[:count]
    if not source.description.startswith("random"):
        sets.append((noise.description, batch, drawn))
    if not noise.unbounded:
        return operations, sets, []

    def scaled(factor: float) -> Feeds:
        return {
            name: (array * factor).astype(array.dtype) if name in noise.unbounded else array
            for name, array in drawn[0].items()
        }

    sets += [(ZEROS, batch, [scaled(0.0)]), (TIMES.format(LARGE), batch, [scaled(LARGE)])]
    return operations, sets, [(TIMES.format(f), batch, [scaled(f)]) for f in OTHER]


def _operations(given: Artifact, artifact: Artifact, feeds: Feeds) -> int | None:
    """Return the operations of one pass over `feeds`, counted on `artifact`, else on `given`."""
    shapes = {name: array.shape for name, array in feeds.items()}
    own = convert_feeds(feeds, given.signature, artifact.signature)
    own_shapes = {name: array.shape for name, array in own.items()}
    with open_files() as files:
        found = files.matrix_operations(artifact, own_shapes)
        return files.matrix_operations(given, shapes) if found is None else found


def _plan(operations: int | None) -> tuple[int, tuple[int, ...]]:
    """Return the number of sets per batch, and the batches, for `operations` per sample."""
    for count, batches in PLANS:
        rows = count * sum(batches) + EDGES * batches[1]
        if operations is None or rows * operations <= OPERATIONS:
            return count, batches
    return PLANS[-1]


def _ranges(outputs: Sequence[Outputs]) -> Mapping[str, float]:
    """Return the largest finite magnitude of each floating-point output over all inputs."""
    found: dict[str, float] = {}
    for one in outputs:
        for name, array in one.items():
            if array.dtype.kind == "f" and (finite := array[np.isfinite(array)]).size:
                found[name] = max(found.get(name, 0.0), float(np.abs(finite).max()))
    return found


def _equal_terms(what: str, feeds: Feeds) -> int:
    """Return the most equal terms that a sum may have: the size of a sample for ZEROS, else 0."""
    if what != ZEROS:
        return 0
    return max((array[0].size for array in feeds.values() if array.ndim and len(array)), default=0)


def _fixed(mine: Signature, theirs: Signature) -> Signature:
    """Return `mine`, with the batch of `theirs` if only that one is fixed."""
    axis, batch = mine.batch_axis, theirs.batch_axis
    if isinstance(axis, int) or not isinstance(batch, int):
        return mine
    return replace(
        mine,
        inputs=tuple(
            replace(
                spec,
                shape=tuple(
                    batch if place == mine.batch_position(spec) else dim
                    for place, dim in enumerate(spec.shape)
                ),
            )
            for spec in mine.inputs
        ),
    )


def _named(outputs: Outputs, names: Mapping[str, str]) -> Outputs:
    return {names[name]: array for name, array in outputs.items()}


def _vary(signature: Signature, outputs: Sequence[Outputs]) -> bool:
    """Return whether each output has two different rows, or fewer than two rows."""
    return all(_varies([one[spec.name] for one in outputs]) for spec in signature.outputs)


def _varies(arrays: Sequence[np.ndarray]) -> bool:
    rows = [row for array in arrays if array.ndim for row in array]
    return len(rows) < 2 or any(not np.array_equal(rows[0], row) for row in rows[1:])
