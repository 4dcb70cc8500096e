"""Max-pooling as a compiler gets it, against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolkit.trainers.torch_pooling import max_pool, max_pool_backward


@given(st.data(), st.sampled_from([(2, 2), (3, 3), (2, 1), (1, 4)]))
def test_values_indices_and_gradients_are_torchs(data: st.DataObject, window: tuple[int, int]):
    """Few different values, so that maxima are often equal."""
    counts = data.draw(st.tuples(*[st.integers(1, 3)] * 4))
    shape = (counts[0], counts[1], counts[2] * window[0], counts[3] * window[1])
    elements = st.sampled_from([-1.0, 0.0, -0.0, 0.5, 2.0])
    inputs = torch.from_numpy(data.draw(hnp.arrays(np.float32, shape, elements=elements)))
    values, indices = torch.nn.functional.max_pool2d(
        inputs.requires_grad_(), window, return_indices=True
    )
    gradient = torch.arange(1.0, values.numel() + 1).reshape(values.shape)
    (expected,) = torch.autograd.grad(values, inputs, gradient)
    inputs = inputs.detach()
    ours, ours_indices = max_pool(inputs, window)
    assert torch.equal(ours, values)
    assert torch.equal(ours_indices, indices)
    found = max_pool_backward(gradient, inputs, window, [], 0, 1, False, indices)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ([3, 3], [2, 2], [0, 0], [1, 1]),
        ([2, 2], [2, 2], [1, 1], [1, 1]),
        ([2, 2], [2, 2], [0, 0], [2, 2]),
        ([5, 5], [], 0, 1),
        ([6, 6], [], 0, 1),
    ],
    ids=["overlapping", "padded", "dilated", "a part left over", "large"],
)
def test_other_windows_are_left_to_torch(kernel, stride, padding, dilation):
    inputs = torch.zeros(1, 1, 12, 12)
    assert max_pool(inputs, kernel, stride, padding, dilation) is NotImplemented
    rest = (padding, dilation, False, torch.zeros(1, dtype=torch.int64))
    assert max_pool_backward(inputs, inputs, kernel, stride, *rest) is NotImplemented
