"""Capture of a user module as an exported program with positional tensor inputs and outputs."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from models.torch.example import BATCH, explained
from models.torch.program import keys_of, path_name, signature_of_program, without_weights
from models.torch.program_checks import NAMESPACES
from toolkit.core.errors import SourceError, UsageError, unknown_name
from toolkit.core.specs import Axes, Signature, TensorSpec


@dataclass(frozen=True, kw_only=True)
class Captured:
    """Signature, weights and exported program of a user module.

    `extents` are those of the named axes in the example. `example` holds the integer and boolean
    inputs of the example.
    """

    extents: Mapping[str, int]
    example: Mapping[str, np.ndarray]
    signature: Signature
    weights: Mapping[str, np.ndarray]
    program: bytes


def capture(module: nn.Module, example: Any, axes: Axes | None, source: str) -> Captured:
    """Export a user module with torch.export, and return its program, signature and weights.

    `example` holds the arguments of forward: a tensor or array, a tuple of arguments, a dict of
    arguments by name, or a tuple and a dict. Arguments that are no tensors become constants. An
    input is named after its parameter of forward; if it is nested, its keys and indices follow,
    joined by dots. `axes` are the dynamic axes. By default, the first axis is dynamic in every
    input in which it has the same extent as in the first input. No axis is dynamic if the module
    fails on the first sample alone, for example because another input holds indices of samples.
    Raises UsageError for an example that does not fit, and SourceError for a module that
    torch.export cannot follow, or that uses operators of another package.
    """
    module.eval()
    arguments = _bound(module, example, source)
    leaves, spec = pytree.tree_flatten_with_path(arguments)
    is_tensor = [isinstance(leaf, torch.Tensor) for _, leaf in leaves]
    tensors = dict(zip(_keys(leaves), (leaf for _, leaf in leaves), strict=True))
    tensors = {name: leaf for name, leaf in tensors.items() if isinstance(leaf, torch.Tensor)}
    if not tensors:
        raise UsageError(
            f"{source} got no tensor to run with.", hint="Give one: --input name=2x3x32x32."
        )
    if axes is None:
        varying = _default_axes(tensors)
        if not _runs_with_one_row(module, leaves, spec, varying):
            varying = {}
    else:
        varying = _checked_axes(tensors, axes)
    extents = {
        word: tensors[name].shape[axis]
        for name, named in varying.items()
        for axis, word in named.items()
    }
    tensors = {name: _widened(t, varying.get(name, {})) for name, t in tensors.items()}
    outputs = _called(module, arguments, source)
    _flatten_forward(module, [leaf for _, leaf in leaves], spec, is_tensor)
    with explained(source, "Fix the model, or say by --dynamic which axes vary"):
        program = torch.export.export(
            module,
            tuple(tensors.values()),
            dynamic_shapes=(
                tuple(dict.fromkeys(varying.get(name, {}), Dim.AUTO) for name in tensors),
            ),
        )
    _refuse_foreign_operators(program, source)
    found = signature_of_program(program)
    named = _named(found, list(tensors), outputs, varying, source)
    state = module.state_dict()
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}
    whole = {
        name: tensor.numpy()
        for name, tensor in tensors.items()
        if tensor.ndim and not tensor.is_floating_point() and not tensor.is_complex()
    }
    return Captured(
        extents=extents,
        example=whole,
        signature=named,
        weights=weights,
        program=without_weights(program),
    )


def _refuse_foreign_operators(program: ExportedProgram, source: str) -> None:
    """Raise SourceError for operators that exist only after another package has been imported."""
    targets = {node.target for node in program.graph.nodes if isinstance(node.target, OpOverload)}
    foreign = sorted(str(target) for target in targets if target.namespace not in NAMESPACES)
    if foreign:
        raise SourceError(
            f"{source} uses operators that torch does not have: {', '.join(foreign)}.",
            hint="Build the model of torch's own operators. Models of transformers have options "
            "for it: attn_implementation='eager', experts_implementation='batched_mm'.",
        )


def _bound(module: nn.Module, example: Any, source: str) -> dict[str, Any]:
    """Return the arguments by the names of forward's parameters, with arrays as tensors."""
    args, kwargs = _split(example)
    given = pytree.tree_map(_tensor, (args, kwargs))
    try:
        bound = inspect.signature(module.forward).bind(*given[0], **given[1])
    except TypeError as error:
        takes = ", ".join(inspect.signature(module.forward).parameters)
        raise UsageError(
            f"{source} cannot be called with these inputs: {error}; forward takes: {takes}.",
            hint="Give an input for each: --input name=2x3x32x32, or all by --example.",
        ) from None
    return dict(bound.arguments)


def _split(example: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    if isinstance(example, Mapping):
        return (), example
    if not isinstance(example, tuple | list):
        return (example,), {}
    if len(example) == 2 and isinstance(example[0], tuple | list) and isinstance(example[1], dict):
        return example[0], example[1]
    return example, {}


def _tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    # torch.export would make the strides of a view a condition on the input.
    return value.detach().cpu().contiguous() if isinstance(value, torch.Tensor) else value


def _called(module: nn.Module, arguments: Mapping[str, Any], source: str) -> list[str]:
    """Run the original module once, and return the names of its output tensors."""
    try:
        with torch.no_grad():
            given = module.forward(**arguments)
    except Exception as error:  # user code may raise anything
        told = str(error).strip().partition("\n")[0].rstrip(".")
        raise UsageError(
            f"{source} fails on the inputs of {', '.join(arguments)}: "
            f"{type(error).__name__}: {told}.",
            hint="Give inputs that it takes, or fix it.",
        ) from error
    taken = _keys(pytree.tree_flatten_with_path(arguments)[0])
    names = [path_name(path) for path, _ in _tensors_of(given)]
    names = [f"output.{name}" if name in taken else name for name in names]
    if not names:
        raise UsageError(
            f"{source} gives a {type(given).__name__} without any tensor in it.",
            hint="Return a tensor, or a tuple or dict of them.",
        )
    return names


def _keys(leaves: Sequence[tuple[Any, Any]]) -> list[str]:
    """Return the names of the leaves of the arguments."""
    return [".".join(keys_of(path)) for path, _ in leaves]


def _tensors_of(outputs: Any) -> list[tuple[Any, torch.Tensor]]:
    paths, _ = pytree.tree_flatten_with_path(_plain(outputs))
    return [(path, leaf) for path, leaf in paths if isinstance(leaf, torch.Tensor)]


def _plain(outputs: Any) -> Any:
    """Convert dataclasses, mappings and named tuples in outputs to dicts, and tuples to lists.

    torch knows how to traverse dicts and lists, but not a library's own output classes.
    """
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        fields = (field.name for field in dataclasses.fields(outputs))
        return {name: _plain(getattr(outputs, name)) for name in fields}
    if isinstance(outputs, Mapping):
        return {str(name): _plain(value) for name, value in outputs.items()}
    if isinstance(outputs, tuple) and hasattr(outputs, "_asdict"):
        return {name: _plain(value) for name, value in outputs._asdict().items()}
    return [_plain(value) for value in outputs] if isinstance(outputs, list | tuple) else outputs


def _default_axes(tensors: Mapping[str, torch.Tensor]) -> Axes:
    first = next((t for t in tensors.values() if t.ndim), None)
    if first is None:
        return {}
    same = [name for name, t in tensors.items() if t.ndim and t.shape[0] == first.shape[0]]
    return {name: {0: BATCH} for name in same}


def _runs_with_one_row(
    module: nn.Module, leaves: Sequence[tuple[Any, Any]], spec: Any, axes: Axes
) -> bool:
    """Return whether the module also runs on the first sample of the example."""
    names = _keys(leaves)
    rows = [leaf[:1] if name in axes else leaf for name, (_, leaf) in zip(names, leaves)]  # noqa: B905
    try:
        with torch.no_grad():
            module.forward(**pytree.tree_unflatten(rows, spec))
    except Exception:  # user code may raise anything
        return False
    return True


def _checked_axes(tensors: Mapping[str, torch.Tensor], axes: Axes) -> Axes:
    for name, named in axes.items():
        if name not in tensors:
            raise unknown_name("input", name, tensors)
        for axis in named:
            if not 0 <= axis < tensors[name].ndim:
                raise UsageError(
                    f"Got axis {axis} of input {name!r}, which has {tensors[name].ndim}.",
                    hint="Axes count from 0: --dynamic input:0=batch,2=height.",
                )
    return axes


def _widened(tensor: torch.Tensor, axes: Mapping[int, str]) -> torch.Tensor:
    """Repeat a tensor on dynamic axes of extent 1, which torch.export would make constant."""
    for axis in axes:
        if tensor.shape[axis] == 1:
            tensor = torch.cat([tensor, tensor], dim=axis)
    return tensor


def _flatten_forward(
    module: nn.Module, leaves: list[Any], spec: Any, is_tensor: list[bool]
) -> None:
    """Replace forward by one that takes positional tensors and returns a tuple of tensors."""
    original = module.forward

    def forward(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = iter(tensors)
        filled = [
            next(given) if is_one else leaf for leaf, is_one in zip(leaves, is_tensor, strict=True)
        ]
        outputs = original(**pytree.tree_unflatten(filled, spec))
        return tuple(leaf for _, leaf in _tensors_of(outputs))

    module.forward = forward  # a wrapping module would rename the submodules


def _named(
    found: Signature, inputs: list[str], outputs: list[str], axes: Axes, source: str
) -> Signature:
    """Return the signature with the given names of inputs, outputs and axes in place of torch's.

    Raises UsageError for an axis that should vary, but is fixed in the program.
    """
    called: dict[object, str] = {}
    for spec, name in zip(found.inputs, inputs, strict=True):
        for axis, word in axes.get(name, {}).items():
            if isinstance(spec.shape[axis], int):
                raise UsageError(
                    f"Axis {axis} of input {name!r} of {source} was to vary ({word!r}), and the "
                    f"model takes {spec.shape[axis]} alone.",
                    hint="Leave it out of --dynamic, or give --dynamic none for a model that takes "
                    "one shape.",
                )
            if spec.shape[axis] is not None:
                called.setdefault(spec.shape[axis], word)

    def renamed(spec: TensorSpec, name: str) -> TensorSpec:
        shape = tuple(dim if isinstance(dim, int) else called.get(dim) for dim in spec.shape)
        return TensorSpec(name=name, dtype=spec.dtype, shape=shape)

    return Signature(
        inputs=tuple(renamed(s, n) for s, n in zip(found.inputs, inputs, strict=True)),
        outputs=tuple(renamed(s, n) for s, n in zip(found.outputs, outputs, strict=True)),
    )
