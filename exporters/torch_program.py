"""torch -> .pt2, an exported program (torch.export)."""

from __future__ import annotations

import operator
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, final

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils.flop_counter import FlopCounterMode

from exporters import ROUTES
from exporters.base import (
    Description,
    Exported,
    Exporter,
    ExportOptions,
    Route,
    StoredTensor,
    TensorReader,
)
from models.torch.example import explained, exported
from models.torch.program import (
    flat_module,
    load_program,
    program_of,
    signature_of_program,
)
from toolkit.core.artifact import Artifact

ENTRY = "model.pt2"


@final
class TorchProgram(Exporter):
    """Exporter of torch programs with dynamic named axes, which load without the model's code."""

    route: ClassVar[Route] = ROUTES["torch-export"]

    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        with explained(source.path):
            program = exported(source)
        torch.export.save(program, directory / ENTRY)
        return Exported(
            entry=ENTRY,
            precision=precision_of(program),
            options={"exporter": "torch.export", "torch": torch.__version__},
        )


@final
class TorchProgramTensors(TensorReader):
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        return tensors_of(load_program(path))

    def operators(self, path: Path) -> Mapping[str, int]:
        nodes = load_program(path).graph.nodes
        return Counter(str(node.target) for node in nodes if node.op == "call_function")

    def describe(self, path: Path) -> Description:
        program = load_program(path)
        return Description(
            signature=signature_of_program(program),
            precision=precision_of(program),
            directory=path.parent,
            entry=path.name,
            files=[path.name],
        )


def tensors_of(program: ExportedProgram) -> Sequence[StoredTensor]:
    """Return the parameters, buffers and constants of a program, each with its live readers."""
    signature = program.graph_signature
    places = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    readers = _live_readers(program)
    tensors = {**program.constants, **program.state_dict}
    return [
        StoredTensor(
            name=name,
            array=tensors[name].detach().numpy(),
            readers=readers.get(place, ()),
        )
        for place, name in places.items()
    ]


def matrix_operations(source: Artifact, shapes: Mapping[str, Sequence[int]]) -> int | None:
    """Count the operations of matrix products and convolutions in one forward pass of a program.

    A multiplication and an addition count two. `shapes` are those of the inputs, by name. Returns
    None if the source has no program, or if torch cannot follow the shapes without values.
    """
    program = program_of(source)
    if program is None:
        return None
    module = flat_module(program)
    specs = source.signature.inputs
    try:
        with (
            torch.no_grad(),
            FakeTensorMode(allow_non_fake_inputs=True),
            FlopCounterMode(display=False) as counter,
        ):
            module(*(torch.empty(shapes[s.name], dtype=getattr(torch, s.dtype)) for s in specs))
    except Exception:  # torch's errors here have no common base class
        return None
    return int(counter.get_total_flops())


def precision_of(program: ExportedProgram) -> str:
    """Return the floating-point dtype of the weights: "mixed" for several, "none" without any."""
    floats = {t.dtype for t in program.state_dict.values() if t.is_floating_point()}
    if len(floats) > 1:
        return "mixed"
    return str(floats.pop()).removeprefix("torch.") if floats else "none"


def _live_readers(program: ExportedProgram) -> dict[str, tuple[str, ...]]:
    """Return, for each input of the graph, the operations that read it and affect an output.

    An operation that writes into a tensor affects all that share its memory.
    """
    bases, writers = _shared_memory(program.graph.nodes)
    live: set[Node] = set()
    todo = [node for node in program.graph.nodes if node.op == "output"]
    while todo:
        node = todo.pop()
        if node not in live:
            live.add(node)
            todo += [*node.all_input_nodes, *writers.get(bases.get(node, node), ())]
    return {
        node.name: tuple(f"{user.name} ({user.target})" for user in node.users if user in live)
        for node in program.graph.nodes
        if node.op == "placeholder"
    }


def _shared_memory(nodes: Iterable[Node]) -> tuple[dict[Node, Node], dict[Node, list[Node]]]:
    """Return, for each view, the tensor whose memory it shares, and the writers of each tensor."""
    bases: dict[Node, Node] = {}
    writers: dict[Node, list[Node]] = defaultdict(list)
    for node in nodes:
        if node.target is operator.getitem:
            whole = node.all_input_nodes[0]
            bases[node] = bases.get(whole, whole)
        elif isinstance(node.target, OpOverload):
            schema = node.target._schema.arguments
            values = [*node.args, *(node.kwargs.get(a.name) for a in schema[len(node.args) :])]
            for argument, value in zip(schema, values, strict=True):
                if argument.alias_info is None:
                    continue
                for tensor in value if isinstance(value, Sequence) else [value]:
                    if isinstance(tensor, Node):
                        base = bases[node] = bases.get(tensor, tensor)
                        if argument.alias_info.is_write:
                            writers[base].append(node)
    return bases, writers
