"""Exposer of the inner tensors of a torch module."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from exporters.base import InnerTensorWriter
from models.torch.example import dynamic_shapes, example, explained
from models.torch.program import module_of
from toolkit.core.artifact import Artifact

# Operators that stay whole because ONNX has them too, so that their outputs keep their names there.
WHOLE = (
    "conv1d", "conv2d", "conv3d", "conv_transpose2d", "gelu", "group_norm", "instance_norm",
    "layer_norm", "linear",
)  # fmt: skip


@final
class TorchExposer(InnerTensorWriter):
    """Exposer of the tensors of a torch module, under the names that the ONNX exporter gives them.

    Operators are decomposed as in the ONNX exporter.
    """

    def expose(self, source: Artifact, directory: Path) -> tuple[Path, Mapping[str, str]]:
        module = module_of(source)
        inputs, shapes = example(source), dynamic_shapes(source, module)
        table = torch.export.default_decompositions()
        for name in WHOLE:
            for overload in getattr(torch.ops.aten, name).overloads():
                table.pop(getattr(getattr(torch.ops.aten, name), overload), None)
        outputs = [spec.name for spec in source.signature.outputs]
        with explained(source.path), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # caused by torch itself
            program = torch.export.export(module, inputs, dynamic_shapes=shapes)
            graph = program.run_decompositions(table).module()
            inner = Inner(graph, outputs)
            exposed = torch.export.export(
                inner, inputs, dynamic_shapes=dynamic_shapes(source, inner)
            )
        path = directory / "model.pt2"
        torch.export.save(exposed, path)
        (given,) = (node for node in graph.graph.nodes if node.op == "output")
        called = dict(zip(pytree.tree_leaves(given.args), outputs, strict=True))
        nodes = (node for node in graph.graph.nodes if node.op == "call_function")
        return path, {called.get(node, node.name): str(node.target) for node in nodes}


class Inner(nn.Module):
    """Module that returns the inner floating-point tensors of a graph by name, then its outputs.

    Inner tensors are in the order of the graph. `outputs` are the names of the outputs.
    """

    def __init__(self, graph: fx.GraphModule, outputs: list[str]) -> None:
        super().__init__()
        self.inner = graph
        self.outputs = outputs

    def forward(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        kept: dict[str, torch.Tensor] = {}
        results = _Keeping(self.inner, kept).run(*inputs)
        outputs = dict(zip(self.outputs, pytree.tree_leaves(results), strict=True))
        return {**{n: t for n, t in kept.items() if n not in outputs}, **outputs}


class _Keeping(fx.Interpreter):
    """Interpreter of a graph that keeps copies of the floating-point results of its nodes."""

    def __init__(self, module: fx.GraphModule, kept: dict[str, torch.Tensor]) -> None:
        super().__init__(module)
        self._kept = kept

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        is_tensor = n.op == "call_function" and isinstance(result, torch.Tensor)
        if is_tensor and result.is_floating_point():
            self._kept[n.name] = result.clone()
        return result
