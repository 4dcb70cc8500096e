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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.numpy import load
from torch import nn
from torch.export import ExportedProgram

from models import FAMILIES
from models.torch.base import restored
from toolkit.core.artifact import PROGRAM, Artifact
from toolkit.core.errors import SourceError

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


def module_of(checkpoint: Artifact) -> nn.Module:
    """The module of a checkpoint in evaluation mode, with its weights.

    A family's is built; a user's own is the program that lies beside its weights. Raises
    IntegrityError for files that were altered, or weights that are not the model's.
    """
    checkpoint.verify()
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
