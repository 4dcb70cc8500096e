"""What torch.export is shown of a model: example inputs, and which axes vary."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from models.torch.program import flat_program, input_names, module_of, program_of
from toolkit.core.artifact import Artifact
from toolkit.core.errors import SourceError
from toolkit.core.specs import Signature

EXAMPLE_BATCH = 2  # torch.export takes an extent of 1 for a constant
BATCH = "batch"


def example(source: Artifact, *, batch: int = EXAMPLE_BATCH) -> tuple[torch.Tensor, ...]:
    """A tensor for each input: zeros, `batch` of them and every other named axis of EXAMPLE_BATCH,
    or, where another axis than the batch varies, what the program was made with, if it says so."""
    signature = source.signature
    if _names(signature) > {BATCH} and (program := program_of(source)) is not None:
        args, kwargs = program.example_inputs or ((), {})
        given = torch.utils._pytree.tree_leaves((args, kwargs))
        tensors = tuple(leaf for leaf in given if isinstance(leaf, torch.Tensor))
        if len(tensors) == len(signature.inputs):
            return tensors
    return tuple(
        torch.zeros(
            [
                dim if isinstance(dim, int) else batch if dim == BATCH else EXAMPLE_BATCH
                for dim in spec.shape
            ],
            dtype=getattr(torch, spec.dtype),
        )
        for spec in signature.inputs
    )


def exported(source: Artifact) -> ExportedProgram:
    """Return the program of the source, or else `traced`."""
    program = flat_program(source)
    return traced(source) if program is None else program


def traced(source: Artifact, *, batch: int = EXAMPLE_BATCH) -> ExportedProgram:
    """Return what torch.export makes of the source's module, shown a batch of this size.

    Raises what torch raises for a module that it cannot follow.
    """
    module, largest = module_of(source), _largest_batch(source)
    inputs = example(source, batch=batch if largest is None else min(batch, largest))
    return torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes(source, module))


def dynamic_shapes(source: Artifact, module: nn.Module) -> tuple[Any, ...]:
    """For each input, its axes that vary; the same name is the same axis."""
    dims = {
        name: Dim(name, min=1, max=_largest_batch(source)) if name == BATCH else Dim.AUTO
        for name in _names(source.signature)
    }
    shapes = tuple(
        {
            axis: Dim.AUTO if dim is None else dims[dim]
            for axis, dim in enumerate(spec.shape)
            if not isinstance(dim, int)
        }
        for spec in source.signature.inputs
    )
    parameters = inspect.signature(module.forward).parameters.values()
    takes_any = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters)
    return (shapes,) if takes_any else shapes


def _largest_batch(source: Artifact) -> int | None:
    """Return what the program of the source was limited to when it was made, None if nothing."""
    if (program := program_of(source)) is None:
        return None
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    for name, spec in zip(input_names(program), source.signature.inputs, strict=True):
        for extent, dim in zip(values[name].shape, spec.shape, strict=True):
            if dim == BATCH and isinstance(extent, torch.SymInt):
                limits = program.range_constraints.get(extent.node.expr)
                return int(limits.upper) if limits is not None and limits.upper.is_Integer else None
    return None


@contextmanager
def explained(source: object, hint: str = "Mend the model there") -> Iterator[None]:
    """Turns what torch raises on a model that it cannot export into a SourceError."""
    try:
        yield
    except Exception as error:  # torch has classes of its own for it, on several bases
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        told = str(cause).strip().partition("\n")[0].rstrip(".")
        raise SourceError(
            f"torch {torch.__version__} could not export {source}: {type(cause).__name__}: {told}.",
            hint=f"{hint}; https://docs.pytorch.org/docs/stable/export.html says what torch.export "
            "can follow.",
        ) from error


def _names(signature: Signature) -> set[str]:
    return {dim for spec in signature.inputs for dim in spec.shape if isinstance(dim, str)}
