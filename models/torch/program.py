"""Exported programs (.pt2, torch.export), opened without running anything that they bring; and the
module of a checkpoint.

torch.export.load unpickles the objects that an archive marks as pickled, and falls back to an older
format whose weights it unpickles; models.torch.program_checks says what it does with the graph.
Each of these runs code of the file's author. So the entries of an archive are checked first, and
torch is given a new archive of the checked bytes.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from models import FAMILIES
from models.torch.base import restored
from models.torch.program_checks import checked_config, checked_graph, checked_samples
from toolkit.core.artifact import PROGRAM, Artifact, Format
from toolkit.core.errors import SourceError
from toolkit.core.specs import Dim, Signature, TensorSpec
from toolkit.core.tensors import load_tensors
from toolkit.core.zips import RefusedEntry, checked_copy

MOST_TIMES = 4  # torch stores its entries uncompressed
MOST_ELEMENTS = 16  # declared per byte of the file: expanded buffers store less than they declare
FEW_ELEMENTS = 1 << 24  # declared by a file of any size
GRAPH = "models/model.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
CONFIGS = (
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)
NEEDED = {GRAPH, SAMPLE_INPUTS, *CONFIGS}
# An archive has one folder, and in it these entries: torch.export.pt2_archive.constants.
ENTRIES = re.compile(
    r"[\w.-]+/(?:archive_format|archive_version|byteorder|version|\.data/version"
    r"|\.data/serialization_id|extra/[\w.-]+"
    rf"|data/weights/weight_\d+|data/constants/tensor_\d+|{'|'.join(map(re.escape, NEEDED))})"
)


def module_of(source: Artifact) -> nn.Module:
    """The module of a checkpoint or an exported program in evaluation mode, with its weights.

    It takes the inputs of the signature in order, and gives a tensor, or a tuple of them. A
    family's is built; a user's own is the program that lies beside its weights. Raises
    IntegrityError for files that were altered, or weights that are not the model's.
    """
    source.verify()
    if source.format is Format.TORCH_EXPORT:
        return flat_module(load_program(source.path))
    return _of_checkpoint(source)


def _of_checkpoint(checkpoint: Artifact) -> nn.Module:
    if PROGRAM in checkpoint.files:
        return _with_weights(checkpoint).module()
    if checkpoint.model.family not in FAMILIES.names():
        raise SourceError(
            f"{checkpoint.directory} holds the weights of a user's model, and has no {PROGRAM} "
            "that would say how they are used.",
            hint="Train it with --framework torch, as a module that torch.export can follow.",
        )
    return restored(checkpoint.model, load_tensors(checkpoint.path))


def program_of(source: Artifact) -> ExportedProgram | None:
    """What a file or a checkpoint holds of a user's model; None for a family's.

    The weights of a checkpoint's are zeros, or others than those of the checkpoint.
    """
    if source.format is Format.TORCH_EXPORT:
        return load_program(source.path)
    if PROGRAM not in source.files:
        return None
    digest = source.files[PROGRAM].digest
    return _in_checkpoint(source.directory, digest, source.files[source.entry].size_bytes)


@functools.lru_cache(maxsize=1)  # a large model's graph takes seconds to read
def _in_checkpoint(directory: Path, digest: str, elsewhere: int) -> ExportedProgram:
    return load_program(directory / PROGRAM, elsewhere)


def _with_weights(checkpoint: Artifact) -> ExportedProgram:
    """The program of a checkpoint with the checkpoint's weights.

    Raises SourceError where their names or shapes differ.
    """
    program, weights = program_of(checkpoint), load_tensors(checkpoint.path)
    assert program is not None
    wanted = {name: tuple(tensor.shape) for name, tensor in program.state_dict.items()}
    if {name: array.shape for name, array in weights.items()} != wanted:
        raise SourceError(
            f"The weights of {checkpoint.directory} are not those of its {PROGRAM}: their names or "
            "shapes differ.",
            hint="Train or capture the model again.",
        )
    state: dict[str, torch.Tensor] = {}
    for name, tensor in program.state_dict.items():
        held = torch.from_numpy(weights[name])
        is_parameter = isinstance(tensor, nn.Parameter)
        state[name] = nn.Parameter(held, tensor.requires_grad) if is_parameter else held
    return ExportedProgram(
        root=program.graph_module,
        graph=program.graph,
        graph_signature=program.graph_signature,
        state_dict=state,
        range_constraints=program.range_constraints,
        module_call_graph=copy.deepcopy(program.module_call_graph),
        example_inputs=program.example_inputs,
        constants=program.constants,
        verifiers=program.verifiers,
    )


def flat_program(source: Artifact) -> ExportedProgram | None:
    """The program of a user's model with the weights of the source, if its inputs are tensors by
    place and its outputs too; None for another, and for a family's model.

    Raises IntegrityError for files that were altered.
    """
    source.verify()
    program = program_of(source)
    if program is None or not _is_flat(program):
        return None
    return _with_weights(source) if source.format is Format.CHECKPOINT else program


class FlatModule(nn.Module):
    """A program's module whose inputs and outputs are tensors in a row.

    What it takes and gives may be nested in tuples and dicts, by name, and have numbers and None
    among the tensors: those are as they were when the program was made.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.module = program.module()
        self._spec = program.call_spec.in_spec
        specs = program.graph_signature.input_specs
        self._leaves = [
            spec.arg.value if isinstance(spec.arg, ConstantArgument) else Ellipsis
            for spec in specs
            if spec.kind is InputKind.USER_INPUT
        ]

    def forward(self, *tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        leaves = [next(given) if leaf is Ellipsis else leaf for leaf in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        outputs = pytree.tree_leaves(self.module(*args, **kwargs))
        return tuple(leaf for leaf in outputs if isinstance(leaf, torch.Tensor))


def flat_module(program: ExportedProgram) -> nn.Module:
    """The module itself, where its inputs are tensors by place and its outputs too."""
    return program.module() if _is_flat(program) else FlatModule(program)


def _is_flat(program: ExportedProgram) -> bool:
    plain = pytree.tree_flatten(((0,) * len(input_names(program)), {}))[1]
    outputs = program.call_spec.out_spec
    flat = {pytree.tree_flatten(one)[1] for one in (0, (0,) * outputs.num_leaves)}
    tensors = len(output_names(program)) == outputs.num_leaves
    return program.call_spec.in_spec == plain and outputs in flat and tensors


def input_names(program: ExportedProgram) -> list[str]:
    """Of the tensors that it takes: the parameters of forward, as torch.export flattens them."""
    return [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument)
    ]


def output_names(program: ExportedProgram) -> list[str]:
    """Of the tensors that it gives: `output` for a single one, else the keys and places that lead
    to each in what forward returns, joined by dots."""
    spec = program.call_spec.out_spec
    assert spec is not None
    whole = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    paths = [path for path, _ in pytree.tree_flatten_with_path(whole)[0]]
    user = [
        spec for spec in program.graph_signature.output_specs if spec.kind is OutputKind.USER_OUTPUT
    ]
    return [
        path_name(path)
        for path, spec in zip(paths, user, strict=True)
        if isinstance(spec.arg, TensorArgument)
    ]


def keys_of(path: Sequence[Any]) -> list[str]:
    """The keys and places that lead to a part of something nested."""
    return [
        str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path
    ]


def path_name(path: Sequence[Any], root: str = "output") -> str:
    """`("boxes", 0)` as boxes.0; what has no key but its place is `output.0`, or `output`."""
    keys = keys_of(path)
    if not keys or keys[0].isdecimal():
        keys.insert(0, root)
    return ".".join(keys)


def signature_of_program(program: ExportedProgram) -> Signature:
    """What it takes and gives. The first axis that varies at the front of an input is the batch;
    other extents that vary keep torch's symbols."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names = input_names(program)
    batch = next(
        (
            str(values[name].shape[0])
            for name in names
            if values[name].ndim and not str(values[name].shape[0]).isdecimal()
        ),
        None,
    )
    given = [
        spec.arg.name
        for spec in program.graph_signature.output_specs
        if spec.kind is OutputKind.USER_OUTPUT and isinstance(spec.arg, TensorArgument)
    ]
    return Signature(
        inputs=tuple(_tensor_spec(name, values[name], batch) for name in names),
        outputs=tuple(
            _tensor_spec(name, values[place], batch)
            for name, place in zip(output_names(program), given, strict=True)
        ),
    )


def _tensor_spec(name: str, value: torch.Tensor, batch: str | None) -> TensorSpec:
    def dim(extent: Any) -> Dim:
        if isinstance(extent, int):
            return extent
        text = str(extent)
        if text.isdecimal():  # one that varied until an operator fixed it
            return int(text)
        return "batch" if text == batch else text if text.isidentifier() else None

    return TensorSpec(
        name=name,
        dtype=str(value.dtype).removeprefix("torch."),
        shape=tuple(dim(extent) for extent in value.shape),
    )


def write_program(module: nn.Module, rows: torch.Tensor) -> bytes:
    """An exported program of a module that takes [N, ...] and gives [N, outputs], for any N.

    `rows` are two of them. Raises what torch.export raises for a module that it cannot follow.
    """
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module.eval(), (rows,), dynamic_shapes=({0: batch},))
    return without_weights(program)


def without_weights(program: ExportedProgram) -> bytes:
    """What torch.export.save writes of a program, with zeros in the place of its weights.

    For a checkpoint, which has the weights in a file of their own. The zeros of a tensor are one
    element, with strides of 0.
    """
    weights = dict(program.state_dict)
    for name, weight in weights.items():
        zeros = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
        is_parameter = isinstance(weight, nn.Parameter)
        program.state_dict[name] = (
            nn.Parameter(zeros, weight.requires_grad) if is_parameter else zeros
        )
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No complete tensor found")  # each is one element
            torch.export.save(program, stream)
    finally:
        program.state_dict.update(weights)
    return stream.getvalue()


def load_program(path: Path, elsewhere: int = 0) -> ExportedProgram:
    """Open an archive of torch.export.save, without running anything that it brings.

    `elsewhere` are the elements that it may declare without holding them: as many as another file
    has. Raises SourceError for a file that is no such archive, could run code, or was written by a
    version of torch whose archives the installed one does not read.
    """
    with _checked(path, elsewhere) as archive:
        try:
            return torch.export.load(archive)
        except Exception as error:  # torch's deserialiser raises whatever its parts raise
            raise SourceError(
                f"torch {torch.__version__} could not open {path}: "
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                hint="Export it with the torch that is installed here.",
            ) from error


def check_archive(path: Path) -> None:
    """Raise SourceError for a file that is no archive of one exported program, or could run
    code."""
    with _checked(path, 0):
        pass


@contextlib.contextmanager
def _checked(path: Path, elsewhere: int) -> Iterator[BinaryIO]:
    """Yield a new archive of the checked entries of `path`."""
    places: list[str] = []
    elements = 0

    def check(name: str, read: Callable[[], bytes]) -> bytes | None:
        nonlocal elements
        root, _, place = name.partition("/")
        if places and root != places[0].partition("/")[0]:
            raise RefusedEntry(f"its entry {name!r} is outside its folder")
        places.append(name)
        if place == GRAPH:
            return checked_graph(read())
        if place == SAMPLE_INPUTS:
            return checked_samples(place, read())
        if place in CONFIGS:
            content, declared = checked_config(read())
            elements += declared
            if elements > MOST_ELEMENTS * path.stat().st_size + FEW_ELEMENTS + elsewhere:
                raise RefusedEntry("its tensors are declared many times larger than the file")
            return content
        return None

    with checked_copy(
        path,
        kind="an exported program",
        hint="Give a .pt2 of torch.export.save, written by torch 2.8 or newer.",
        allowed=ENTRIES,
        most_times=MOST_TIMES,
        check=check,
    ) as archive:
        missing = NEEDED - {name.partition("/")[2] for name in places}
        if missing:
            raise SourceError(
                f"{path} is not an exported program: it has no {sorted(missing)[0]}.",
                hint="Give a .pt2 of torch.export.save, written by torch 2.8 or newer.",
            )
        yield archive
