"""Export of a model with torch.export: example inputs, dynamic axes and error messages."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from models.torch.program import flat_program, input_names, module_of, program_of
from toolkit.core.artifact import Artifact
from toolkit.core.errors import SourceError
from toolkit.core.specs import Signature

EXAMPLE_BATCH = 2  # torch.export specialises an extent of 1 to a constant
BATCH = "batch"


def example(source: Artifact, *, batch: int = EXAMPLE_BATCH) -> tuple[torch.Tensor, ...]:
    """Return an example tensor for each input.

    If the batch and another named axis vary, these are the example inputs stored in the source's
    program, if it has them. Otherwise they are zeros, with `batch` samples and an extent of
    EXAMPLE_BATCH on every other dynamic axis.
    """
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
    """Return the source's own program if it is flat, otherwise the result of `traced`."""
    program = flat_program(source)
    return traced(source) if program is None else program


def traced(source: Artifact, *, batch: int = EXAMPLE_BATCH) -> ExportedProgram:
    """Export the source's module with torch.export, with an example batch of at most `batch`.

    A stored program may limit the batch to fewer samples. Raises whatever torch raises for a module
    that it cannot export.
    """
    module, largest = module_of(source), _largest_batch(source)
    inputs = example(source, batch=batch if largest is None else min(batch, largest))
    return torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes(source, module))


def dynamic_shapes(source: Artifact, module: nn.Module) -> tuple[Any, ...]:
    """Return the dynamic axes of each input, in the structure that torch.export expects.

    The batch is one Dim, bounded by the source's program; all other axes are Dim.AUTO.
    """
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
    """Return the largest batch that the source's program allows, or None if it sets no limit."""
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
def explained(source: object, hint: str = "Fix the model there") -> Iterator[None]:
    """Convert exceptions of torch on a model that it cannot export to SourceError."""
    try:
        yield
    except Exception as error:  # torch's export errors have no common base class
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        told = str(cause).strip().partition("\n")[0].rstrip(".")
        if isinstance(cause, GuardOnDataDependentSymNode):
            hint = "Its operators depend on the values of an input: write that with torch.where"
        raise SourceError(
            f"torch {torch.__version__} could not export {source}: {type(cause).__name__}: {told}.",
            hint=f"{hint}; https://docs.pytorch.org/docs/stable/export.html says what torch.export "
            "can follow.",
        ) from error


def _names(signature: Signature) -> set[str]:
    return {dim for spec in signature.inputs for dim in spec.shape if isinstance(dim, str)}
