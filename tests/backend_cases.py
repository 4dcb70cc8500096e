"""The backend tests of the onnx package: graphs of one operator and small models, with results.

`cases()` yields them, `ours` and `bare` run one through `toolkit.load` and through the runtime's
own interface, `of_pass` runs what a pass makes of one. Each returns what came of it in words.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.loader import load_model_tests

from exporters.onnx.reader import graphs
from exporters.passes.rewriting import apply
from toolkit import load
from toolkit.core.errors import ToolkitError

RIGHT = "right"
WRONG = "wrong"
REFUSED = "refused"  # a typed error of this project
FAILED = "failed"  # any other exception
RUNTIMES = ("onnxruntime", "openvino", "onnx-reference")
PASSES = (
    *("simplify", "store-constants", "fold-batch-norm", "fold-time-channel", "static-batch"),
    *("float16", "bfloat16"),
)
COARSE = {"float16": 2e-2, "bfloat16": 1e-1}
"""Of the values of a case, as a part of the largest, where a pass computes in fewer digits."""

Values = Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A graph, and pairs of inputs and outputs in the graph's order."""

    name: str
    kind: str
    model: onnx.ModelProto
    data_sets: Sequence[tuple[Values, Values]]
    rtol: float
    atol: float

    @property
    def other_types(self) -> bool:
        """Whether an input or output is a sequence, an optional or another type than a tensor."""
        values = (*self.model.graph.input, *self.model.graph.output)
        return any(value.type.WhichOneof("value") != "tensor_type" for value in values)


def cases() -> Iterator[Case]:
    """Yield the cases of the package: those of operators, then those that are files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found in collect_testcases(None):
            yield Case(
                name=found.name, kind="node", model=found.model, data_sets=found.data_sets,
                rtol=found.rtol, atol=found.atol,
            )  # fmt: skip
    for kind in ("simple", "pytorch-converted", "pytorch-operator", "real"):
        for found in load_model_tests(kind=kind):
            directory = _directory(found)
            if directory is None:
                continue
            model = onnx.load(directory / "model.onnx" if directory.is_dir() else directory)
            yield Case(
                name=found.name, kind=kind, model=model, rtol=found.rtol, atol=found.atol,
                data_sets=[_read(each, model) for each in _data_sets(directory)],
            )  # fmt: skip


def _directory(found: Any) -> Path | None:
    """Where the files of a case are, or nothing if it is to be downloaded."""
    for text in (found.model_dir, found.url):
        if text and Path(text).exists():
            return Path(text)
    return None


def _data_sets(directory: Path) -> list[Path]:
    place = directory if directory.is_dir() else directory.with_suffix("")
    return sorted(place.glob("test_data_set_*"))


def _read(place: Path, model: onnx.ModelProto) -> tuple[Values, Values]:
    def side(what: str, declared: Sequence[onnx.ValueInfoProto]) -> Values:
        values = []
        for number in range(len(list(place.glob(f"{what}_*.pb")))):
            content = (place / f"{what}_{number}.pb").read_bytes()
            kind = declared[number].type.WhichOneof("value")
            if kind == "sequence_type":
                values.append(numpy_helper.to_list(onnx.SequenceProto.FromString(content)))
            elif kind == "optional_type":
                values.append(numpy_helper.to_optional(onnx.OptionalProto.FromString(content)))
            else:
                values.append(numpy_helper.to_array(onnx.TensorProto.FromString(content)))
        return values

    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    return side("input", inputs), side("output", model.graph.output)


def ours(case: Case, path: Path, runtime: str) -> str:
    """What `toolkit.load` makes of a case whose graph is at `path`."""
    try:
        with load(path, runtime) as session:
            names = [spec.name for spec in session.signature.outputs]

            def run(feeds: Mapping[str, Any]) -> Sequence[Any]:
                found = session.run(feeds)
                return [found[name] for name in names]

            return _judged(case, run)
    except ToolkitError as error:
        return f"{REFUSED}: {error}"
    except Exception as error:
        return f"{FAILED}: {type(error).__name__}: {error}"


def bare(case: Case, path: Path, runtime: str) -> str:
    """What the runtime's own interface makes of it."""
    try:
        return _judged(case, BARE[runtime](path))
    except Exception as error:
        return f"{FAILED}: {type(error).__name__}: {error}"


def of_pass(case: Case, path: Path, name: str) -> str:
    """What a pass makes of it, computed by the first runtime that computes the case rightly."""
    judge = next((each for each in RUNTIMES if bare(case, path, each) == RIGHT), None)
    if judge is None:
        return f"{REFUSED}: no runtime computes the case"
    rewritten = path.with_name(f"rewritten-{path.name}")
    shutil.copyfile(path, rewritten)
    number = f"={_first_extent(case.model)}" if name == "static-batch" else ""
    try:
        apply([f"{name}{number}"], rewritten)
    except ToolkitError as error:
        return f"{REFUSED}: {error}"
    except Exception as error:
        return f"{FAILED}: {type(error).__name__}: {error}"
    told = ""
    for runtime in dict.fromkeys((judge, "onnx-reference")):
        try:
            told = _judged(case, BARE[runtime](rewritten), coarse=COARSE.get(name, 0.0))
        except Exception as error:
            told = f"{FAILED}: {runtime}: {type(error).__name__}: {error}"
        if told == RIGHT:
            return RIGHT
    if name == "bfloat16":
        # The evaluator's own arithmetic in bfloat16 adds without a wider sum: the same graph with
        # the same constants in float32 shows what the pass did.
        onnx.save(_widened(onnx.load(rewritten)), rewritten)
        with contextlib.suppress(Exception):
            return _judged(case, BARE[judge](rewritten), coarse=COARSE[name])
    return told


def _widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with float32 in place of bfloat16, constants having the same values."""
    few, many = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
    for graph in graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == few:
                value.type.tensor_type.elem_type = many
        tensors = list(graph.initializer)
        for node in graph.node:
            for each in node.attribute:
                if each.name in ("to", "dtype") and each.i == few:
                    each.i = many
                if each.HasField("t"):
                    tensors.append(each.t)
        for tensor in tensors:
            if tensor.data_type == few:
                array = numpy_helper.to_array(tensor).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def _inputs(case: Case) -> list[str]:
    stored = {tensor.name for tensor in case.model.graph.initializer}
    return [value.name for value in case.model.graph.input if value.name not in stored]


def _first_extent(model: onnx.ModelProto) -> int:
    stored = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in stored and dims:
            return dims[0].dim_value or 1
    return 1


Run = Callable[[Mapping[str, Any]], Sequence[Any]]


def _onnxruntime(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, dict(feeds))


def _openvino(path: Path) -> Run:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": "1"})

    def run(feeds: Mapping[str, Any]) -> Sequence[Any]:
        found = compiled({name: value for name, value in feeds.items() if _has(compiled, name)})
        return [found[place] for place in range(len(compiled.outputs))]

    return run


def _has(compiled: Any, name: str) -> bool:
    return any(name in port.names for port in compiled.inputs)


def _reference(path: Path) -> Run:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(path))
    return lambda feeds: evaluator.run(None, dict(feeds))


BARE: Mapping[str, Callable[[Path], Run]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "onnx-reference": _reference,
}


def _judged(case: Case, run: Run, coarse: float = 0.0) -> str:
    names = _inputs(case)
    for inputs, expected in case.data_sets:
        got = run(dict(zip(names, inputs, strict=False)))
        if len(got) != len(expected):
            return f"{WRONG}: {len(got)} outputs, expected {len(expected)}"
        for place, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
            if apart := _apart(mine, theirs, case, coarse):
                return f"{WRONG}: output {place}: {apart}"
    return RIGHT


def _apart(got: Any, expected: Any, case: Case, coarse: float) -> str:
    """How a value differs from the one that is expected; empty if it does not."""
    if isinstance(expected, list | tuple):
        if not isinstance(got, list | tuple) or len(got) != len(expected):
            return f"a sequence of {len(expected)} expected"
        pairs = zip(got, expected, strict=True)
        return next((told for pair in pairs if (told := _apart(*pair, case, coarse))), "")
    if expected is None or got is None:
        return "" if expected is got else "an empty optional"
    mine, theirs = np.asarray(got), np.asarray(expected)
    if mine.dtype != theirs.dtype and "O" not in (mine.dtype.kind, theirs.dtype.kind):
        return f"{mine.dtype}, expected {theirs.dtype}"
    if mine.shape != theirs.shape:
        return f"shape {mine.shape}, expected {theirs.shape}"
    if theirs.dtype.kind in "OUS":
        same = [str(value) for value in mine.ravel()] == [str(value) for value in theirs.ravel()]
        return "" if same else "other strings"
    if theirs.dtype.kind == "c":
        return "" if np.allclose(mine, theirs, case.rtol, case.atol, equal_nan=True) else "values"
    mine, theirs = mine.astype(np.float64), theirs.astype(np.float64)
    atol = max(case.atol, coarse * float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0)))
    if np.allclose(mine, theirs, max(case.rtol, coarse), atol, equal_nan=True):
        return ""
    with np.errstate(invalid="ignore"):
        return f"values off by up to {np.nanmax(np.abs(mine - theirs)):.3g}"
