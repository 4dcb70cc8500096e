"""Load and write exported programs (.pt2, torch.export), and load the module of a checkpoint.

torch.export.load unpickles the objects that an archive marks as pickled, and falls back to an older
format whose weights it unpickles; models.torch.program_checks describes what it does with the
graph. All of this can run code of the file's author. So the entries of an archive are checked
first, and torch reads a new archive of the checked bytes.
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
MOST_ELEMENTS = 16  # declared per byte of the file; expanded buffers store less than they declare
FEW_ELEMENTS = 1 << 24  # number that a file of any size may declare
GRAPH = "models/model.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
CONFIGS = (
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)
NEEDED = {GRAPH, SAMPLE_INPUTS, *CONFIGS}
# An archive has one folder with these entries: torch.export.pt2_archive.constants.
ENTRIES = re.compile(
    r"[\w.-]+/(?:archive_format|archive_version|byteorder|version|\.data/version"
    r"|\.data/serialization_id|extra/[\w.-]+"
    rf"|data/weights/weight_\d+|data/constants/tensor_\d+|{'|'.join(map(re.escape, NEEDED))})"
)


def module_of(source: Artifact) -> nn.Module:
    """Return the module of a checkpoint or an exported program, in evaluation mode with weights.

    It takes the inputs of the signature in order, and returns a tensor or a tuple of tensors. The
    module of a family is built; that of a user model is the program stored beside the weights.
    Raises IntegrityError for files that were altered, or weights that do not fit the family, and
    SourceError for a user model without a program, or with weights that do not fit it.
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
    """Return the program of an exported file or of a user model's checkpoint, None for a family's.

    The program of a checkpoint does not have the checkpoint's weights; they are zeros, for example.
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
    """Return the program of a checkpoint with the checkpoint's weights.

    Raises SourceError if their names or shapes differ from the program's.
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
    """Return the program of a user model with the weights of the source, or None if not flat.

    A program is flat if it takes positional tensors, and returns a tensor or a tuple of tensors.
    Return None for a family's model as well. Raises IntegrityError for files that were altered.
    """
    source.verify()
    program = program_of(source)
    if program is None or not _is_flat(program):
        return None
    return _with_weights(source) if source.format is Format.CHECKPOINT else program


class FlatModule(nn.Module):
    """Module of a program, with positional tensors as inputs and a tuple of tensors as output.

    The program's own inputs and outputs may be nested in tuples and dicts, and include numbers and
    None. Such inputs keep the values they had when the program was exported; such outputs are
    dropped.
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
    """Return the module of a flat program itself, and that of another as a FlatModule."""
    return program.module() if _is_flat(program) else FlatModule(program)


def _is_flat(program: ExportedProgram) -> bool:
    plain = pytree.tree_flatten(((0,) * len(input_names(program)), {}))[1]
    outputs = program.call_spec.out_spec
    flat = {pytree.tree_flatten(one)[1] for one in (0, (0,) * outputs.num_leaves)}
    tensors = len(output_names(program)) == outputs.num_leaves
    return program.call_spec.in_spec == plain and outputs in flat and tensors


def input_names(program: ExportedProgram) -> list[str]:
    """Return the names of the input tensors: forward's parameters, as flattened by torch.export."""
    return [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument)
    ]


def output_names(program: ExportedProgram) -> list[str]:
    """Return the names of the output tensors.

    A tensor that forward returns as such is `output`. Otherwise a name is the path of keys and
    indices to the tensor in the returned structure, as of `path_name`.
    """
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
    """Return a pytree path as a list of keys and indices."""
    return [
        str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path
    ]


def path_name(path: Sequence[Any], root: str = "output") -> str:
    """Return a pytree path joined by dots, such as `boxes.0`.

    `root` comes first if the path is empty or starts with an index: `output`, `output.0`.
    """
    keys = keys_of(path)
    if not keys or keys[0].isdecimal():
        keys.insert(0, root)
    return ".".join(keys)


def signature_of_program(program: ExportedProgram) -> Signature:
    """Return the signature of a program.

    The batch is the first leading axis of an input that varies. Other axes that vary keep torch's
    symbol as their name, or have no name if their extent is an expression.
    """
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
        if text.isdecimal():  # a dynamic extent that an operator made constant
            return int(text)
        return "batch" if text == batch else text if text.isidentifier() else None

    return TensorSpec(
        name=name,
        dtype=str(value.dtype).removeprefix("torch."),
        shape=tuple(dim(extent) for extent in value.shape),
    )


def write_program(module: nn.Module, rows: torch.Tensor) -> bytes:
    """Export a module that takes [N, ...] and returns [N, outputs], for any N, as a program file.

    `rows` is an example batch of two samples. The file has zeros in place of the weights. Raises
    whatever torch.export raises for a module that it cannot export.
    """
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module.eval(), (rows,), dynamic_shapes=({0: batch},))
    return without_weights(program)


def without_weights(program: ExportedProgram) -> bytes:
    """Return the bytes that torch.export.save writes for a program with zeros as its weights.

    A checkpoint stores its weights in a separate file. The zeros of a tensor are one element with
    strides of 0.
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
            # The zeros are one element each.
            warnings.filterwarnings("ignore", "No complete tensor found")
            torch.export.save(program, stream)
    finally:
        program.state_dict.update(weights)
    return stream.getvalue()


def load_program(path: Path, elsewhere: int = 0) -> ExportedProgram:
    """Load an archive of torch.export.save, without running code that it contains.

    `elsewhere` is the number of elements that the archive may declare without storing them, because
    another file stores them. Raises SourceError for a file that is no such archive, could run code,
    or was written by a version of torch that the installed one cannot read.
    """
    with _checked(path, elsewhere) as archive:
        try:
            return torch.export.load(archive)
        except Exception as error:  # torch does not document what its deserialiser raises
            raise SourceError(
                f"torch {torch.__version__} could not open {path}: "
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                hint="Export it with the torch that is installed here.",
            ) from error


def check_archive(path: Path) -> None:
    """Raise SourceError for a file that is no archive of an exported program, or could run code."""
    with _checked(path, 0):
        pass


@contextlib.contextmanager
def _checked(path: Path, elsewhere: int) -> Iterator[BinaryIO]:
    """Yield a new archive with the checked entries of `path`.

    Raises SourceError if `path` is no archive, or an entry is refused or missing.
    """
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
