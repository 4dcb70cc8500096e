"""Programs in checkpoints, which have no weights of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.torch.capture import capture
from models.torch.program import flat_program, module_of, program_of
from toolkit.core.artifact import PROGRAM, Artifact, Checkpoint
from toolkit.core.errors import SourceError
from toolkit.core.files import write_atomically
from toolkit.core.specs import ModelSpec


class Net(nn.Module):
    """Tied weights, batch norm, a buffer that is not saved, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(64, 64)
        self.b = self.a
        self.norm = nn.BatchNorm1d(64)
        self.register_buffer("table", torch.randn(64), persistent=False)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.b(self.a(x))) * self.table + torch.tensor([0.5] * 64)


def checkpoint(directory: Path, module: nn.Module, **altered: np.ndarray) -> Artifact:
    found = capture(module, torch.randn(2, 64), None, "net.py:Net")
    write_atomically(directory / PROGRAM, found.program)
    spec = ModelSpec(name="net", family="own", framework="torch", signature=found.signature)
    weights = {**found.weights, **altered}
    return Checkpoint.save(
        directory, spec=spec, weights=weights, seed=0, epoch=0, metrics={}, training={}
    ).artifact()


def test_a_checkpoint_has_its_weights_once(tmp_path: Path) -> None:
    module = Net()
    made = checkpoint(tmp_path, module)
    program = program_of(made)
    assert program is not None
    assert not any(tensor.any() for tensor in program.state_dict.values())
    assert b"".join(bytes(t.untyped_storage()) for t in program.state_dict.values()).count(0) < 100
    rows = torch.randn(5, 64)
    (given,) = module(rows)
    torch.testing.assert_close(module_of(made)(rows), (given,))
    flat = flat_program(made)
    assert flat is not None
    torch.testing.assert_close(flat.module()(rows), (given,))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, Net(), **{"a.bias": np.zeros(3, np.float32)})
    with pytest.raises(SourceError, match="not those of its program"):
        module_of(made)


def test_a_program_is_read_again_where_another_took_its_place(tmp_path: Path) -> None:
    for name in ("first", "second"):
        module = Net()
        made = checkpoint(tmp_path / name, module)
        rows = torch.randn(3, 64)
        torch.testing.assert_close(module_of(made)(rows), module(rows))


@torch.library.custom_op("foreign::halved", mutates_args=())
def halved(x: torch.Tensor) -> torch.Tensor:
    return x / 2


@halved.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Foreign(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return halved(x)


def test_an_operator_of_another_package_is_refused_by_name() -> None:
    with pytest.raises(SourceError, match=r"operators that torch does not have: foreign\.halved"):
        capture(Foreign(), torch.randn(2, 4), None, "net.py:Foreign")
