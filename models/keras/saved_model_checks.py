"""Security checks of a SavedModel, before TensorFlow reads it.

A SavedModel is a graph that TensorFlow executes, in part as soon as it is loaded. Stateless
operators stay inside the graph, except those that read files or call Python. Stateful operators are
refused unless they are on a list. The functions that save and restore variables access files.
TensorFlow runs them for a checkpoint only, so nothing else in the graph may reach them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from toolkit.core.errors import SourceError

GRAPH = "saved_model.pb"
OTHER_GRAPHS = ("saved_model.pbtxt", "saved_model.cpb")  # TensorFlow reads them as well
# Stateless operators that read files, call Python or communicate with another process.
REACHING = re.compile(
    r"_.*|.*Dataset.*|Debug.*|.*PyFunc.*|Reader.*|.*TPU.*|.*HostCompute.*|.*Snapshot.*"
    r"|DecodeProtoV2|EncodeProto|GenerateVocabRemapping|ImmutableConst"
    r"|InitializeTableFromTextFile|MatchingFiles|ReadFile|Collective.*|Nccl.*|.*Send|.*Recv"
)
# Stateful operators whose state stays inside the graph.
STATEFUL = re.compile(
    # Variables.
    r"Variable(?:V2|Shape)?|VarHandleOp|VarIsInitializedOp|ReadVariableOp|Assign\w*VariableOp"
    r"|DestroyResourceOp|DisableCopyOnRead|TemporaryVariable|Empty|DeepCopy"
    r"|Resource(?:Apply|Gather|Scatter|Sparse|StridedSlice)\w*|ResourceCountUpTo"
    # Tables.
    r"|(?:Anonymous)?(?:Mutable|MutableDense)?HashTable(?:OfTensors)?(?:V2)?|InitializeTableV2"
    r"|LookupTable(?:Export|Find|Import|Insert|Remove|Size)V2"
    # Random numbers.
    r"|Random(?:Crop|Gamma|Poisson|PoissonV2|Shuffle|StandardNormal|Uniform|UniformInt)"
    r"|Multinomial|(?:Parameterized)?TruncatedNormal|NonDeterministicInts|StatelessRandomGetAlg"
    r"|Stateful(?:Random|Standard|Truncated|Uniform)\w*|Rng\w+|\w+CandidateSampler"
    r"|SampleDistortedBoundingBox(?:V2)?"
    # Control flow, calls, lists and checks.
    r"|Case|If|While|StatefulPartitionedCall|Assert|CheckNumerics(?:V2)?|DeviceIndex|GuaranteeConst"
    r"|TensorArray(?!Dataset)\w*|Stack(?:\w*V2)?|CudnnRNN\w*"
)
RESTORING = frozenset({"RestoreV2", "Restore", "RestoreSlice"})
SAVING = frozenset({"MergeV2Checkpoints", "Save", "SaveSlices", "SaveV2"})
INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")


def check_saved_model(directory: Path) -> None:
    """Raise SourceError if a directory is no SavedModel, or could access anything outside it.

    A graph is refused if it could access other files, call Python or communicate with another
    process. So is a directory with a second graph or with links to other directories.
    """
    path = directory / GRAPH
    hint = "Give the directory that holds saved_model.pb."
    try:
        document = saved_model_pb2.SavedModel.FromString(path.read_bytes())
        reasons = [*_outside(directory), *_reasons(document)]
    except (OSError, DecodeError, RecursionError, ValueError) as error:
        raise SourceError(
            f"{path} could not be read as a SavedModel: {error}.", hint=hint
        ) from error
    if not document.meta_graphs:
        raise SourceError(f"{path} is no SavedModel: it holds no graph.", hint=hint)
    if reasons:
        raise SourceError(
            f"{directory} is not opened: {reasons[0]}, which could reach beyond it.",
            hint="Only open what you would run: export the model again from its source.",
        )


def _outside(directory: Path) -> Iterator[str]:
    """Yield a reason for each second graph, and for each link to a file outside the directory."""
    for name in OTHER_GRAPHS:
        if (directory / name).exists() or (directory / name).is_symlink():
            yield f"it has a second graph, {name}"
    root = directory.resolve()
    for path in (directory / GRAPH, directory / "variables", directory / "assets"):
        for one in (path, *(path.rglob("*") if path.is_dir() else ())):
            if one.is_symlink() and not one.resolve().is_relative_to(root):
                yield f"{one.relative_to(directory)} is a link to {one.resolve()}"


def _reasons(document: saved_model_pb2.SavedModel) -> Iterator[str]:
    """Yield a reason for each part of the graphs that could access something outside of them."""
    for graph in document.meta_graphs:
        functions = {one.signature.name: one.node_def for one in graph.graph_def.library.function}
        everything = [graph.graph_def.node, *functions.values()]
        operators = {node.op for nodes in everything for node in nodes} - functions.keys()
        refused = sorted(op for op in operators if not _stays(op))
        if refused:
            yield f"its graph has {', '.join(refused)}"
        for asset in graph.asset_file_def:
            if not re.fullmatch(r"(?!\.+(?:/|$))[\w. -]+", asset.filename):
                yield f"it has an asset named {asset.filename!r}"
        reach = _Reach(graph, functions)
        found = reach.of_what_is_run() & (SAVING | RESTORING) or reach.of_restoring() & SAVING
        if found:
            yield f"{', '.join(sorted(found))} is used outside the functions that save variables"


def _stays(operator: str) -> bool:
    """Return whether an operator stays inside the graph, or saves or restores variables."""
    if operator in SAVING | RESTORING:
        return True
    definition = op_def_registry.get(operator)
    if definition is None or REACHING.fullmatch(operator):
        return False
    return not definition.is_stateful or bool(STATEFUL.fullmatch(operator))


class _Reach:
    """Operators reachable from nodes of a graph, via their inputs and the functions they call."""

    def __init__(self, graph: Any, functions: dict[str, Any]) -> None:
        self._graph = graph
        self._functions = functions
        self._nodes = defaultdict(list)
        for node in graph.graph_def.node:
            self._nodes[node.name].append(node)

    def of_what_is_run(self) -> set[str]:
        """Return the operators reachable from signatures, initialisation and concrete functions."""
        graph = self._graph
        names = [
            output.name for one in graph.signature_def.values() for output in one.outputs.values()
        ]
        for name in INIT_COLLECTIONS:
            if name in graph.collection_def:
                collection = graph.collection_def[name]
                names += collection.node_list.value
                names += [one.decode("latin-1") for one in collection.bytes_list.value]
        return self._operators(names, graph.object_graph_def.concrete_functions)

    def of_restoring(self) -> set[str]:
        """Return the operators reachable from the operator that restores variables."""
        return self._operators([self._graph.saver_def.restore_op_name], ())

    def _operators(self, names: Iterable[str], functions: Iterable[str]) -> set[str]:
        found: set[str] = set()
        nodes, calls = list(names), list(functions)
        seen: set[str] = set()
        called: set[str] = set()
        while nodes or calls:
            if nodes:
                name = nodes.pop().lstrip("^").partition(":")[0]
                if name in seen:
                    continue
                seen.add(name)
                members = self._nodes[name]
                nodes += [source for node in members for source in node.input]
            else:
                function = calls.pop()
                if function in called:
                    continue
                called.add(function)
                members = self._functions.get(function, ())
            for node in members:
                found.add(node.op)
                calls += [node.op, *_called(node)]
        return found


def _called(node: Any) -> Iterator[str]:
    """Yield the names of the functions that a node calls."""
    for attribute in node.attr.values():
        yield attribute.func.name
        for function in attribute.list.func:
            yield function.name
