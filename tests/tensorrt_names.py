"""Which names of TensorRT our sources use, read off the sources; and what its own bindings need to
be imported without a GPU and without its libraries."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = "ILayer IConstantLayer IConvolutionLayer IDeconvolutionLayer IScaleLayer"
CLASSES = {
    "trt": "",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "layer": LAYERS,
    "tensor": "ITensor",
}
"""What a variable, or an attribute, of such a name holds wherever it stands in those sources."""


def names_in(*sources: str, roots: dict[str, str] = CLASSES) -> set[tuple[str, str]]:
    """What is asked of each class: pairs such as ("ICudaEngine", "num_io_tensors"), and of the
    module itself, as in ("", "BuilderFlag.TF32")."""
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse((ROOT / source).read_text())):
            if isinstance(node, ast.Attribute) and (holder := _holder(node.value, roots)):
                kind, path = holder
                if kind and path:  # an attribute of an attribute
                    continue
                found.add((kind, f"{path}.{node.attr}".lstrip(".")))
    return found


def _holder(node: ast.expr, roots: dict[str, str]) -> tuple[str, str] | None:
    """The class that an expression is an instance of, and what of it: ("", "BuilderFlag") is the
    module's."""
    if isinstance(node, ast.Call):  # an instance of what is called
        made = _holder(node.func, roots)
        return (made[1], "") if made and made[0] == "" and "." not in made[1] else None
    name = {ast.Name: "id", ast.Attribute: "attr"}.get(type(node))
    if name is None:
        return None
    identifier = getattr(node, name).lstrip("_")
    if identifier in roots:
        return roots[identifier], ""
    if isinstance(node, ast.Attribute) and (before := _holder(node.value, roots)):
        return before[0], f"{before[1]}.{node.attr}".lstrip(".")
    return None


def missing(module: object, names: Iterable[tuple[str, str]]) -> list[str]:
    """Those that a module has not. Of several classes, one has to have it."""

    def has(kind: str, path: str) -> bool:
        held = module
        for part in [*filter(None, [kind]), *path.split(".")]:
            if not hasattr(held, part):
                return False
            held = getattr(held, part)
        return True

    return sorted(
        f"{kind}.{path}"
        for kind, path in names
        if not any(has(one, path) for one in kind.split() or [""])
    )


def parameters(doc: str) -> list[list[str]]:
    """Those of each overload that pybind's docstring lists, without self."""
    found = re.findall(r"^(?:\d+\. )?\w+\(self: [^,()]+,? ?(.*?)\) -> ", doc, re.MULTILINE)
    return [re.findall(r"(\w+): ", one) for one in found]


def stub_libraries(bindings: Path) -> Path:
    """A folder with libraries of nothing, under the names that the bindings ask for."""
    compiler, reader = shutil.which("cc"), shutil.which("readelf")
    if compiler is None or reader is None:
        pytest.skip("no C compiler (cc), or no readelf")
    (extension,) = bindings.glob("tensorrt_bindings/tensorrt*.so")
    told = _run(reader, "--wide", "--dyn-syms", "--dynamic", extension)
    wanted = re.findall(r"UND (\w+)$", told, re.MULTILINE)
    ours = sorted({name for name in wanted if _is_tensorrt_s(name)})
    place = Path(tempfile.mkdtemp(prefix="toolkit-stub-"))
    (place / "stub.c").write_text("".join(f"void {name}(void) {{}}\n" for name in ours))
    for library in re.findall(r"\[(libnv[^]]+)\]", told):
        flags = ["-shared", "-fPIC", f"-Wl,-soname,{library}"]
        _run(compiler, *flags, "-o", place / library, place / "stub.c")
    return place


def _is_tensorrt_s(name: str) -> bool:
    """Not Python's, nor C's or C++'s, whose symbols begin with these or have a version."""
    return not name.startswith(("Py", "_"))


def _run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return done.stdout


def by_class(names: Collection[tuple[str, str]]) -> dict[str, set[str]]:
    """What is asked of each class."""
    return {kind: {path for k, path in names if k == kind} for kind, _ in names}
