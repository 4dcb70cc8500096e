"""PyTorch's trace of real passes: the operators that compute, and in what."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from runtimes.operator_trace import Node, precision_of
from runtimes.torch.profile import record

X = torch.ones(2, 3, 8, 8)


def nodes(run: Callable[[], object]) -> list[Node]:
    with torch.inference_mode():
        return record(run)


def operators(run: Callable[[], object]) -> list[str]:
    return [node.operator for node in nodes(run)]


def test_the_call_that_computes_stands_for_those_that_hand_it_on() -> None:
    linear = torch.nn.Linear(8, 4)
    assert operators(lambda: linear(X)) == ["aten::addmm"]
    assert operators(lambda: torch.relu(X)) == ["aten::clamp_min"]


def test_a_call_whose_helpers_compute_too_is_not_lost() -> None:
    """A recurrent layer adds its biases by another operator before its own kernel runs."""
    lstm = torch.nn.LSTM(8, 4, batch_first=True)
    found = operators(lambda: lstm(X[:, 0]))
    assert any("rnn" in name or "lstm" in name for name in found)


def test_moves_and_indices_are_no_arithmetic() -> None:
    def run() -> None:
        flat = X.flatten(1).to(torch.float64).t().contiguous()
        torch.cat([flat, flat])[torch.arange(4) + 1].clone()

    assert nodes(run) == []


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.float32, "float32"),
        (torch.float64, "float64"),
        (torch.float16, "float16"),
        (torch.bfloat16, "bfloat16"),
    ],
)
def test_the_dtype_is_that_of_the_tensors(dtype: torch.dtype, name: str) -> None:
    x = X.to(dtype)
    assert precision_of(nodes(lambda: torch.softmax(x * x, -1))) == name


def test_autocast_inside_a_module_of_float32_weights_shows() -> None:
    linear = torch.nn.Linear(8, 4)

    def run() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            lowered = linear(X)
        return lowered.float().exp()

    found = {node.operator: node.dtype for node in nodes(run)}
    assert (found["aten::addmm"], found["aten::exp"]) == ("bfloat16", "float32")


def test_each_node_says_where_it_ran() -> None:
    (node,) = nodes(lambda: X + X)
    assert node.provider == "cpu"


def test_a_pass_that_fails_leaves_no_observer_behind() -> None:
    with pytest.raises(ZeroDivisionError):
        record(lambda: 1 / 0)
    assert operators(lambda: torch.relu(X)) == ["aten::clamp_min"]
