"""Exported programs (.pt2, torch.export), opened without running anything that they bring; and the
module of a checkpoint, whichever it was.

torch.export.load unpickles what an archive marks as pickled, evaluates its symbolic extents as
Python, and resolves its operators by walking from the module torch: of a file that somebody else
made, all three are a way to run code. So an archive is read through before torch is given it.
"""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.numpy import load
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from models import FAMILIES
from models.torch.base import restored
from toolkit.core.artifact import PROGRAM, Artifact, Format
from toolkit.core.errors import SourceError
from toolkit.core.specs import Dim, Signature, TensorSpec

# What symbolic extents are made of: torch.utils._sympy.functions, and sympy's own arithmetic.
FUNCTIONS = frozenset(
    {
        "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "Equality", "Float", "FloatPow",
        "FloatTrueDiv", "FloorDiv", "FloorToInt", "GreaterThan", "Identity", "IntTrueDiv",
        "Integer", "LShift", "LessThan", "Max", "Min", "Mod", "ModularIndexing", "Mul", "Ne",
        "Not", "Or", "Pow", "PowByNatural", "PythonMod", "RShift", "Rational", "RoundDecimal",
        "RoundToInt", "StrictGreaterThan", "StrictLessThan", "Symbol", "ToFloat", "TruncToFloat",
        "TruncToInt", "Unequality", "Where", "ceiling", "floor",
    }
)  # fmt: skip
SYMBOL = re.compile(r"[a-z]\w{0,30}|-?int_oo|[-+.\de]{1,40}")
ARITHMETIC = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp,
    ast.Compare, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
OPERATORS = re.compile(
    r"(?:torch\.ops\.\w+\.\w+(?:\.\w+)?|_operator\.\w+|math\.\w+|torch\.sym_\w+)"
)
MOST_TIMES = 4  # how much more than its file an archive may unpack to; torch stores, uncompressed
TENSORS = ("weight_", "tensor_")


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
    weights = load(checkpoint.path.read_bytes())
    if PROGRAM not in checkpoint.files:
        if checkpoint.model.family not in FAMILIES.names():
            raise SourceError(
                f"{checkpoint.directory} holds the weights of a model of somebody's own, and has "
                f"no {PROGRAM} that would say how they are used.",
                hint="Train it with --framework torch, as a module that torch.export can follow.",
            )
        return restored(checkpoint.model, weights)
    module = load_program(checkpoint.directory / PROGRAM).module()
    module.load_state_dict(
        {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    )
    return module


def program_of(source: Artifact) -> ExportedProgram | None:
    """What a file or a checkpoint holds of a model of somebody's own; None for a family's."""
    if source.format is Format.TORCH_EXPORT:
        return load_program(source.path)
    return load_program(source.directory / PROGRAM) if PROGRAM in source.files else None


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
    plain = pytree.tree_flatten(((0,) * len(input_names(program)), {}))[1]
    outputs = program.call_spec.out_spec
    flat = {pytree.tree_flatten(one)[1] for one in (0, (0,) * outputs.num_leaves)}
    tensors = len(output_names(program)) == outputs.num_leaves
    if program.call_spec.in_spec == plain and outputs in flat and tensors:
        return program.module()
    return FlatModule(program)


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
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


def load_program(path: Path) -> ExportedProgram:
    """The program of an archive that `check_archive` has nothing against."""
    check_archive(path)
    try:
        return torch.export.load(path)
    except Exception as error:  # torch's deserialiser raises whatever its parts raise
        raise SourceError(
            f"torch {torch.__version__} could not open {path}: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            hint="Export it with the torch that is installed here.",
        ) from error


def check_archive(path: Path) -> None:
    """Raises SourceError for what is no archive of one exported program, or could run code."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check(path, archive)
    except (zipfile.BadZipFile, OSError, KeyError, ValueError, RecursionError) as error:
        raise SourceError(
            f"{path} is not an exported program: {error}.", hint="Give a .pt2 of torch.export.save."
        ) from error


def _check(path: Path, archive: zipfile.ZipFile) -> None:
    records = archive.infolist()
    if sum(record.file_size for record in records) > MOST_TIMES * path.stat().st_size:
        _refuse(path, "it unpacks to many times its size")
    programs = 0
    for record in records:
        place = record.filename.partition("/")[2]  # behind the name of the archive
        if ".." in Path(record.filename).parts or record.filename.startswith("/"):
            _refuse(path, f"it has an entry {record.filename!r}")
        if place.startswith("data/aotinductor"):
            _refuse(path, "it holds compiled code")
        if place.startswith("models/") and place.endswith(".json"):
            programs += 1
            for what in _suspects(json.loads(archive.read(record))):
                _refuse(path, f"its graph has {what}")
        elif place.startswith("data/") and place.endswith("config.json"):
            for name, payload in json.loads(archive.read(record))["config"].items():
                if payload["use_pickle"] or not payload["path_name"].startswith(TENSORS):
                    _refuse(path, f"{name} is a pickled object")
        elif place.startswith("data/") and place.endswith(".pt"):
            _require_plain(path, place, archive.read(record))
    if programs != 1:
        raise ValueError(f"it holds {programs} programs, expected one")


def _suspects(value: Any) -> Iterator[str]:
    """What in the description of a graph is neither arithmetic of extents nor an operator."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "expr_str" and not is_arithmetic(str(inner)):
                yield f"the extent {inner!r}"
            elif key == "target" and isinstance(inner, str) and not OPERATORS.fullmatch(inner):
                yield f"the operator {inner!r}"
            else:
                yield from _suspects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _suspects(inner)


def is_arithmetic(text: str) -> bool:
    """Whether an extent is made of numbers, symbols and FUNCTIONS alone, as Python reads it."""
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if not isinstance(node, ARITHMETIC):
            return False
        if isinstance(node, ast.Name):
            known = FUNCTIONS if id(node) in called else {"oo", "int_oo", "true", "false"}
            if node.id not in known and (id(node) in called or not SYMBOL.fullmatch(node.id)):
                return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if not SYMBOL.fullmatch(node.value):
                return False
        elif isinstance(node, ast.Constant) and not isinstance(node.value, bool | int | float):
            return False
    return True


def _require_plain(path: Path, place: str, content: bytes) -> None:
    """That a pickle holds tensors and containers only, which torch reads without running it."""
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        _refuse(path, f"{place} is a pickle of more than tensors ({type(error).__name__})")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise SourceError(
        f"{path} is not opened: {reason}, which could run code.",
        hint="Only open what you would run: export the model again from its source.",
    )
