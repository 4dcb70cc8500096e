"""Security checks of the entries of an exported program (.pt2), before torch reads them.

torch converts much of a graph's description to Python. It evaluates symbolic extents and guards,
writes names of nodes, inputs and tensors into generated source, looks up operators as attributes,
and imports the modules that the structure of the inputs names. So each string in the description
must be of a known kind, or match PLAIN.
"""

from __future__ import annotations

import ast
import io
import json
import keyword
import math
import pickle
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch._ops import OpOverload

from toolkit.core.zips import RefusedEntry

# Functions in symbolic extents: torch.utils._sympy.functions, and sympy's own arithmetic.
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
POWERS = frozenset({"FloatPow", "LShift", "Pow", "PowByNatural"})
LARGEST_EXPONENT = 64
LONGEST_EXTENT = 20_000  # characters
SYMBOL = re.compile(r"[a-z]\w{0,30}|-?int_oo|[-+]?\d{1,40}(?:\.\d{0,40})?(?:e[-+]?\d{1,2})?")
LONG_EXPONENT = re.compile(r"\d[eE][-+]?\d{3}")
ARITHMETIC = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp,
    ast.Compare, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
# Guards have more than arithmetic. torch.export._unlift writes them into a function.
GUARDS = (*ARITHMETIC, ast.Attribute, ast.BoolOp, ast.boolop, ast.IfExp, ast.Subscript, ast.Slice)
GUARD_NAMES = frozenset({"L", "abs", "float", "inf", "int", "math", "max", "min", "round", "torch"})
GUARD_METHODS = frozenset({"size", "storage_offset", "stride"})
GUARD_ATTRIBUTES = {
    "math": frozenset({"ceil", "floor", "inf", "isnan", "nan", "sqrt", "trunc"}),
    "torch": frozenset(
        {"_sym_sqrt", "sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not"}
    ),
}
# Operators outside torch.ops: getitem, and torch._export.serde.serialize._SYM_OPS.
SCALAR_OPERATORS = frozenset(
    {
        *(
            f"_operator.{name}"
            for name in (
                "add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "le", "lshift", "lt", "mod",
                "mul", "ne", "neg", "not_", "or_", "pos", "pow", "rshift", "sub", "truediv",
            )
        ),
        "math.ceil", "math.floor", "math.trunc", "torch._sym_sqrt", "torch.sym_float",
        "torch.sym_int", "torch.sym_ite", "torch.sym_max", "torch.sym_min", "torch.sym_not",
        "torch.sym_sum",
    }
)  # fmt: skip
OVERLOAD = re.compile(r"torch\.ops\.(\w+)\.(\w+)\.(\w+)")
NAMESPACES = frozenset(
    {"aten", "mkldnn", "onnx", "prims", "quantized", "quantized_decomposed", "torchvision"}
)
FILE_OPERATORS = frozenset({"aten.from_file"})
HIGHER_ORDER = frozenset(
    f"torch.ops.higher_order.{name}"
    for name in (
        "associative_scan", "cond", "flex_attention", "map_impl", "out_dtype", "scan", "while_loop",
        "wrap_with_autocast", "wrap_with_set_grad_enabled",
    )
)  # fmt: skip
PLAIN = re.compile(r"[\w .:/+@-]{0,1000}")  # without quotes, brackets and line breaks
SYMBOL_COUNT = re.compile(r"\d{7}")  # torch loops up to the number of a symbol
TENSOR_PATH = re.compile(r"(?:weight|tensor)_\d+")
# Metadata of nodes that torch only reads. It imports or looks up the names in other metadata.
METADATA = frozenset({"nn_module_stack", "torch_fn"})
CONTAINERS = frozenset(
    {
        None, "builtins.dict", "builtins.list", "builtins.tuple", "collections.OrderedDict",
        "collections.deque", "torch.Size", "torch.fx.immutable_collections.immutable_dict",
        "torch.fx.immutable_collections.immutable_list",
    }
)  # fmt: skip

KINDS = {
    "expr_str": "the extent",
    "target": "the operator",
    "as_operator": "the operator",
    "guards_code": "the guard",
    "in_spec": "the structure",
    "out_spec": "the structure",
    "name": "the name",
    "as_name": "the name",
}


def checked_graph(content: bytes) -> bytes:
    """Return the graph in `content`, without the metadata that torch would look up.

    Raises RefusedEntry if the graph contains a string that torch could run as code.
    """
    graph = json.loads(content)
    for suspect in _suspects(graph, "", in_node=False):
        raise RefusedEntry(f"its graph has {suspect}, which could run code")
    return json.dumps(_without_metadata(graph)).encode()


def checked_config(content: bytes) -> tuple[bytes, int]:
    """Return the list of tensors in `content`, and the total number of elements of their shapes.

    Raises RefusedEntry for pickled objects, for names that are not plain, and for shapes that are
    not numbers.
    """
    document = json.loads(content)
    elements = 0
    for name, payload in document["config"].items():
        if not PLAIN.fullmatch(name):
            raise RefusedEntry(f"it has a tensor named {name[:100]!r}, which could run code")
        if payload["use_pickle"] is not False or not TENSOR_PATH.fullmatch(payload["path_name"]):
            raise RefusedEntry(f"{name} is a pickled object, which could run code")
        shape = [extent["as_int"] for extent in payload["tensor_meta"]["sizes"]]
        if not all(type(extent) is int and extent >= 0 for extent in shape):
            raise RefusedEntry(f"{name} has shape {str(shape)[:100]}")
        elements += math.prod(shape)
    return json.dumps(document).encode(), elements


def checked_samples(place: str, content: bytes) -> bytes:
    """Return a new pickle of the tensors and containers that are pickled in `content`.

    Raises RefusedEntry for a pickle of anything else.
    """
    if not content:
        return content
    try:
        if not content.startswith(b"PK"):
            raise ValueError("it is no archive")
        tensors = torch.load(io.BytesIO(content), weights_only=True)
    except (
        ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError,
        TypeError, ValueError, pickle.UnpicklingError,
    ) as error:  # fmt: skip
        raise RefusedEntry(
            f"{place} is a pickle of more than tensors ({type(error).__name__}), which could run "
            "code"
        ) from error
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


def is_arithmetic(text: str) -> bool:
    """Return whether an extent has only numbers, symbols, arithmetic and calls of FUNCTIONS.

    The text is parsed as Python. It must also be cheap to evaluate: powers and shifts must be by
    small constants.
    """
    return _consists_of(text, ARITHMETIC)


def is_guard(text: str) -> bool:
    """Return whether a guard has only arithmetic on the extents and values of inputs."""
    return _consists_of(text, GUARDS)


def _suspects(value: Any, key: str, *, in_node: bool) -> Iterator[str]:
    """Yield the parts of a graph's description that torch could run as code.

    `key` is the dict key that leads to `value`. A string argument of a node may be arbitrary,
    because torch writes it as a literal.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            if not PLAIN.fullmatch(name) or SYMBOL_COUNT.search(name):
                yield f"a part named {name[:100]!r}"
            if name in ("as_custom_obj", "custom_obj"):
                yield "an object of a class"
            elif not _is_metadata(name, value):
                yield from _suspects(inner, name, in_node=in_node or key == "nodes")
    elif isinstance(value, list):
        for inner in value:
            yield from _suspects(inner, key, in_node=in_node or key == "nodes")
    elif isinstance(value, str) and not _is_known(value, key, in_node=in_node):
        yield f"{KINDS.get(key, f'{key} as')} {value[:100]!r}"


def _is_metadata(name: str, parent: dict[str, Any]) -> bool:
    """Return whether `name` is the metadata of a node or of the graph, not a tensor so named."""
    return name == "metadata" and ("target" in parent or "graph" in parent)


def _is_known(text: str, key: str, *, in_node: bool) -> bool:
    if key == "expr_str":
        return is_arithmetic(text)
    if key in ("target", "as_operator"):
        return is_operator(text)
    if key == "guards_code":
        return is_guard(text)
    if key in ("in_spec", "out_spec"):
        return is_structure(text, inputs=key == "in_spec")
    if key in ("name", "as_name", "forward_arg_names"):
        return not text or (text.isidentifier() and not keyword.iskeyword(text))
    return (in_node and key in ("as_string", "as_strings")) or bool(PLAIN.fullmatch(text))


def is_operator(text: str) -> bool:
    """Return whether a name is a scalar operator, or a torch operator that touches only tensors."""
    if text in SCALAR_OPERATORS or text in HIGHER_ORDER:
        return True
    found = OVERLOAD.fullmatch(text)
    if found is None or found[1] not in NAMESPACES or f"{found[1]}.{found[2]}" in FILE_OPERATORS:
        return False
    packet = getattr(getattr(torch.ops, found[1]), found[2], None)
    return isinstance(getattr(packet, found[3], None), OpOverload)


def is_structure(text: str, *, inputs: bool) -> bool:
    """Return whether the description of a nested structure has only CONTAINERS and plain keys.

    The structure of `inputs` is (args, kwargs), in which keywords must also be identifiers.
    """
    try:
        _, root = json.loads(text)
        parts = [root]
        for part in parts:
            if part["type"] not in CONTAINERS or not _is_context(part["context"]):
                return False
            parts += part["children_spec"]
    except (KeyError, RecursionError, TypeError, ValueError):
        return False
    keywords = root["children_spec"][1:2] if inputs else []
    return all(
        name.isidentifier() and not keyword.iskeyword(name)
        for part in keywords
        if part["type"] == "builtins.dict"
        for name in json.loads(part["context"])
        if isinstance(name, str)
    )


def _is_context(context: Any) -> bool:
    if context is None:
        return True
    keys = json.loads(context)
    return all(
        key is None or isinstance(key, int) or (isinstance(key, str) and bool(PLAIN.fullmatch(key)))
        for key in (keys if isinstance(keys, list) else [keys])
    )


def _without_metadata(value: Any) -> Any:
    """Return a copy of a graph's description with only METADATA kept as metadata."""
    if isinstance(value, dict):
        return {
            name: {key: text for key, text in inner.items() if key in METADATA}
            if _is_metadata(name, value)
            else _without_metadata(inner)
            for name, inner in value.items()
        }
    return [_without_metadata(inner) for inner in value] if isinstance(value, list) else value


def _consists_of(text: str, kinds: tuple[type[ast.AST], ...]) -> bool:
    if len(text) > LONGEST_EXTENT or LONG_EXPONENT.search(text):
        return False
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    guard = kinds is GUARDS
    return all(isinstance(node, kinds) and _is_plain(node, called, guard) for node in nodes)


def _is_plain(node: ast.AST, called: set[int], guard: bool) -> bool:
    match node:
        case ast.Name(id=name) if guard:
            return name in GUARD_NAMES or name in FUNCTIONS
        case ast.Name(id=name):
            if id(node) in called:
                return name in FUNCTIONS
            return name in {"oo", "int_oo", "true", "false"} or bool(SYMBOL.fullmatch(name))
        case ast.Attribute(value=ast.Name(id="math" | "torch" as module), attr=attribute):
            return attribute in GUARD_ATTRIBUTES[module]
        case ast.Attribute(attr=attribute):
            return attribute in GUARD_METHODS and id(node) in called
        case ast.Constant(value=str(value)):
            return bool((PLAIN if guard else SYMBOL).fullmatch(value))
        case ast.Constant(value=value):
            return isinstance(value, bool | int | float) or (guard and value is None)
        case ast.Call(func=ast.Name(id=name), args=args) if name in POWERS:
            return len(args) == 2 and not _has_power(args[0]) and _is_small(args[1])
        case ast.Call(func=func):
            return isinstance(func, ast.Name) or (guard and isinstance(func, ast.Attribute))
        case ast.BinOp(left=base, op=ast.Pow() | ast.LShift(), right=exponent):
            return not _has_power(base) and _is_small(exponent)
    return True


def _has_power(node: ast.AST) -> bool:
    return any(
        (isinstance(part, ast.BinOp) and isinstance(part.op, ast.Pow | ast.LShift))
        or (isinstance(part, ast.Name) and part.id in POWERS)
        for part in ast.walk(node)
    )


def _is_small(exponent: ast.AST) -> bool:
    """Return whether an exponent is a constant of at most LARGEST_EXPONENT: 2, -1, Integer(2)."""
    match exponent:
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=inner):
            return _is_small(inner)
        case ast.Call(func=ast.Name(id="Integer" | "Float"), args=[inner]):
            return _is_small(inner)
        case ast.Constant(value=bool()):
            return False
        case ast.Constant(value=int() | float() as value):
            return abs(value) <= LARGEST_EXPONENT
        case ast.Constant(value=str(value)):
            return bool(re.fullmatch(r"-?\d\d?(?:\.\d*)?", value))
    return False
