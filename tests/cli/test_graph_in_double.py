"""A fault of a graph that is smaller than what rounding may do to a runtime's outputs."""

from __future__ import annotations

from pathlib import Path

import onnx

import toolkit

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    '''An embedding, so that inputs cannot be made small, and a root mean square norm.'''

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 64)
        self.first = nn.Linear(64, 64)
        self.last = nn.Linear(64, 10)

    def forward(self, ids):
        hidden = self.first(self.table(ids))
        mean = hidden.pow(2).mean(-1, keepdim=True)
        return self.last(hidden * torch.rsqrt(mean + 1e-6)).mean(1)

def make():
    torch.manual_seed(0)
    return Net(), (torch.arange(24).reshape(2, 12),)
"""


def without_epsilon(path: Path, out: Path) -> Path:
    model = onnx.load(path)
    made = {name: node for node in model.graph.node for name in node.output}
    (add,) = [
        node
        for node in model.graph.node
        if node.op_type == "Add" and made.get(node.input[0], node).op_type == "ReduceMean"
    ]
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == add.output[0]:
                node.input[place] = add.input[0]
    onnx.save(model, out)
    return out


def test_a_graph_without_an_epsilon_is_not_the_model(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODULE)
    made = toolkit.export(f"{tmp_path}/net.py:make", to="onnx", out=tmp_path / "onnx")
    assert made.outputs.passed
    last = made.outputs.cases[-1]
    assert last.inputs.endswith("the graph in float64")
    wrong = without_epsilon(made.artifact.path, tmp_path / "wrong.onnx")
    found = toolkit.parity_outputs(
        tmp_path / "onnx" / "source", wrong, runtime="onnxruntime"
    ).outputs
    *in_float32, in_float64 = found.cases
    assert all(case.judgement.passed for case in in_float32)  # rounding hides it there
    assert not in_float64.judgement.passed
    assert "of the graph in float64 is off by" in str(found.worst.judgement.reason)
