"""Export of torch modules that read a weight several times, rearrange it, or compute with it alone:
the graph holds every weight bit for bit, and computes the same outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from exporters.base import ExportOptions
from exporters.onnx.from_torch import OnnxFromTorch
from exporters.onnx.reader import stored_tensors
from exporters.proof.weight_parity import WeightParity, compare
from models.torch.program import load_program
from toolkit.sources.backend_reading import weights_of
from toolkit.sources.resolve import open_artifact

IDS = torch.tensor([[1, 0, 4, 2, 2], [3, 3, 1, 0, 4]])


class Functional(nn.Module):
    """A module of the given parts, whose forward is the given function of itself and the input."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, nn.Module | nn.Parameter):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def tied() -> nn.Module:
    embedding, head = nn.Embedding(5, 8), nn.Linear(8, 5, bias=False)
    head.weight = embedding.weight
    return nn.Sequential(embedding, head)


def written(m: Any, x: Tensor) -> Tensor:
    y = torch.zeros_like(x).view(-1, 2, 4)
    y.select(1, 0).copy_(F.linear(x, m.w)[:, :4])
    y[:, 1] = x[:, 4:] * m.bias[1]
    y.add_(m.bias[0])
    return y


def cases() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    norm = nn.utils.parametrizations
    rows, columns, weight = (nn.Parameter(torch.rand(8, 8)) for _ in range(3))
    return {
        "embedding tied to the output layer": (tied(), IDS),
        "weight read plain and transposed": (
            Functional(lambda m, x: F.linear(F.linear(x, m.w), m.w.t()), w=weight),
            torch.rand(2, 8),
        ),
        "table of two parameters": (
            Functional(lambda m, x: x + torch.cat([m.a, m.b], -1).view(-1), a=rows, b=columns),
            torch.rand(2, 128),
        ),
        "weight norm": (norm.weight_norm(nn.Conv1d(4, 8, 3)), torch.rand(2, 4, 9)),
        "spectral norm": (norm.spectral_norm(nn.Linear(4, 6)), torch.rand(2, 4)),
        "exponential of a parameter": (
            Functional(lambda m, x: x * -torch.exp(m.a), a=nn.Parameter(torch.rand(8))),
            torch.rand(2, 8),
        ),
        "scalar scale of a weight": (
            Functional(
                lambda m, x: F.linear(x, m.w * m.scale),
                w=weight,
                scale=nn.Parameter(torch.tensor(3.0)),
            ),
            torch.rand(2, 8),
        ),
        "bias table gathered by an index buffer": (
            Functional(
                lambda m, x: x + m.table[m.index.view(-1)].view(4, 4, -1).permute(2, 0, 1),
                table=nn.Parameter(torch.rand(7, 2)),
                index=torch.arange(4)[:, None] - torch.arange(4)[None] + 3,
            ),
            torch.rand(3, 2, 4, 4),
        ),
        "nearest interpolation": (
            Functional(
                lambda m, x: F.interpolate(m.conv(x), scale_factor=2.0), conv=nn.Conv2d(3, 4, 3)
            ),
            torch.rand(2, 3, 6, 6),
        ),
        "bicubic interpolation": (
            Functional(
                lambda m, x: F.interpolate(m.conv(x), scale_factor=2.0, mode="bicubic"),
                conv=nn.Conv2d(3, 4, 3),
            ),
            torch.rand(2, 3, 6, 6),
        ),
        "weights written into parts of a new tensor": (
            Functional(written, w=weight, bias=nn.Parameter(torch.rand(2))),
            torch.rand(2, 8),
        ),
        "convolutions without a bias": (
            nn.Sequential(
                nn.Conv3d(2, 4, 3, bias=False), nn.ConvTranspose3d(4, 3, 2, stride=2, bias=False)
            ),
            torch.rand(2, 2, 5, 5, 5),
        ),
        "attention with a learned bias": (
            Functional(
                lambda m, x: (
                    F.scaled_dot_product_attention(
                        *[x.view(2, 6, 3, 4).transpose(1, 2)] * 3, attn_mask=m.bias + m.shift
                    )
                    .transpose(1, 2)
                    .reshape(2, 6, -1)
                ),
                bias=nn.Parameter(torch.rand(1, 3, 6, 6)),
                shift=torch.rand(2, 1, 6, 6),
            ),
            torch.rand(2, 6, 12),
        ),
        "buffer as an output": (
            Functional(
                lambda m, x: (x + m.w, m.k), w=nn.Parameter(torch.rand(4)), k=torch.arange(4.0)
            ),
            torch.rand(2, 4),
        ),
    }


CASES = cases()


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "-"))
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    module, x = CASES[request.param]
    place = tmp_path_factory.mktemp("export")
    program = torch.export.export(module.eval(), (x,))
    torch.export.save(program, place / "model.pt2")
    source = open_artifact(place / "model.pt2")
    OnnxFromTorch().export(source, place, ExportOptions())
    return place, weights_of(source), x


def prove(path: Path, weights: dict[str, np.ndarray]) -> WeightParity:
    return compare(weights, stored_tensors(path))


def test_every_weight_is_found(export: tuple[Path, dict[str, np.ndarray], Tensor]):
    place, weights, _ = export
    found = prove(place / "model.onnx", weights)
    assert found.passed, found.failures()
    assert found.total >= 1


def test_outputs_are_those_of_the_module(export: tuple[Path, dict[str, np.ndarray], Tensor]):
    place, _, x = export
    expected = load_program(place / "model.pt2").module()(x)
    graph = onnx.load(place / "model.onnx")
    (name,) = (value.name for value in graph.graph.input)
    found = ReferenceEvaluator(graph).run(None, {name: x.numpy()})
    for got, wanted in zip(found, torch.utils._pytree.tree_leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_one_bit_of_any_weight_fails_the_proof(
    export: tuple[Path, dict[str, np.ndarray], Tensor], tmp_path: Path
):
    place, weights, _ = export
    values = {sorted_bytes(array) for array in weights.values()}
    graph = onnx.load(place / "model.onnx")
    held = [
        tensor
        for tensor in graph.graph.initializer
        if sorted_bytes(numpy_helper.to_array(tensor)) in values
    ]
    assert held
    for tensor in held:
        kept = tensor.raw_data
        tensor.raw_data = bytes([kept[0] ^ 1]) + kept[1:]
        onnx.save(graph, tmp_path / "altered.onnx")
        assert not prove(tmp_path / "altered.onnx", weights).passed, tensor.name
        tensor.raw_data = kept


def sorted_bytes(array: np.ndarray) -> bytes:
    """Equal for arrays of the same values in any order."""
    return np.sort(array, axis=None).tobytes()
