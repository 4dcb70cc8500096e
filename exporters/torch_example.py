"""What torch.export is shown of a model: example inputs, and which axes vary."""

from __future__ import annotations

from typing import Any

import torch

from toolkit.core.specs import Signature

EXAMPLE_BATCH = 2  # torch.export takes an extent of 1 for a constant


def example(signature: Signature) -> tuple[torch.Tensor, ...]:
    """Zeros for each input, every named axis of EXAMPLE_BATCH."""
    return tuple(
        torch.zeros(
            [dim if isinstance(dim, int) else EXAMPLE_BATCH for dim in spec.shape],
            dtype=getattr(torch, spec.dtype),
        )
        for spec in signature.inputs
    )


def dynamic_shapes(signature: Signature) -> tuple[dict[int, Any], ...]:
    """For each input, its named axes; the same name is the same axis."""
    names = {dim for spec in signature.inputs for dim in spec.shape if isinstance(dim, str)}
    dims = {name: torch.export.Dim(name, min=1) for name in names}
    return tuple(
        {axis: dims[dim] for axis, dim in enumerate(spec.shape) if isinstance(dim, str)}
        for spec in signature.inputs
    )
