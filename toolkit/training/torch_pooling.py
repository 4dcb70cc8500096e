"""Max-pooling over windows that do not overlap, in operators that a compiler can vectorise.

Inductor finds the place of each maximum by branches on whole numbers, a value at a time: of a
training step of LeNet at batch 200 on a CPU that was a quarter. As comparisons of floats it is a
tenth of that. Values, indices and gradients are those of torch bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

MOST_PLACES = 16  # of a window: each is an operator or two
aten = torch.ops.aten


def max_pool(
    inputs: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Any:
    """Values and indices, as aten.max_pool2d_with_indices; NotImplemented for other windows."""
    window = _window(inputs, kernel, stride, padding, dilation)
    if window is None:
        return NotImplemented
    places = _places(inputs, window)
    values = _largest(places)
    first = _first(places, values).long()
    rows, columns = (
        torch.arange(extent, device=inputs.device) * side
        for extent, side in zip(values.shape[2:], window, strict=True)
    )
    indices = (rows[:, None] + first // window[1]) * inputs.shape[3] + columns + first % window[1]
    return values, indices


def max_pool_backward(
    gradient: torch.Tensor,
    inputs: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
    indices: torch.Tensor,
) -> Any:
    """As aten.max_pool2d_with_indices_backward: to the first of equal maxima in a window."""
    window = _window(inputs, kernel, stride, padding, dilation)
    if window is None:
        return NotImplemented
    places = _places(inputs, window)
    first = _first(places, _largest(places))
    numbers = torch.arange(len(places), device=inputs.device, dtype=inputs.dtype)
    here = first[:, :, :, None, :, None] == numbers.reshape(1, 1, 1, window[0], 1, window[1])
    return torch.where(here, gradient[:, :, :, None, :, None], 0.0).reshape(inputs.shape)


DECOMPOSITIONS: Mapping[Any, Callable[..., Any]] = {
    aten.max_pool2d_with_indices.default: max_pool,
    aten.max_pool2d_with_indices_backward.default: max_pool_backward,
}
"""For make_fx."""


def _window(
    inputs: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
) -> tuple[int, int] | None:
    """Height and width, if the windows fill the image and none overlaps another."""
    window = _pair(kernel)
    fits = (
        inputs.dim() == 4
        and (not stride or _pair(stride) == window)
        and _pair(padding) == (0, 0)
        and _pair(dilation) == (1, 1)
        and window[0] * window[1] <= MOST_PLACES
        and all(e % w == 0 for e, w in zip(inputs.shape[2:], window, strict=True))
    )
    return window if fits else None


def _pair(given: int | Sequence[int]) -> tuple[int, int]:
    values = [given] if isinstance(given, int) else list(given)
    return values[0], values[-1]


def _places(inputs: torch.Tensor, window: tuple[int, int]) -> list[torch.Tensor]:
    """For each place of a window, row by row, what lies there in all windows: [N, C, H, W]."""
    count, channels, height, width = inputs.shape
    down, right = window
    parted = inputs.reshape(count, channels, height // down, down, width // right, right)
    return [parted[:, :, :, i, :, j] for i in range(down) for j in range(right)]


def _largest(places: Sequence[torch.Tensor]) -> torch.Tensor:
    largest = places[0]
    for place in places[1:]:
        largest = torch.maximum(largest, place)
    return largest


def _first(places: Sequence[torch.Tensor], largest: torch.Tensor) -> torch.Tensor:
    """The number of the first place that has the largest value, as a float."""
    first = torch.full_like(largest, len(places) - 1)
    for number, place in reversed(list(enumerate(places[:-1]))):
        first = torch.where(place == largest, float(number), first)
    return first
