"""Exported programs (.pt2) that try to run code, to write files or to exhaust the machine."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from models import FAMILIES, builder
from models.torch.program import load_program
from toolkit.core.errors import SourceError

Entries = list[tuple[str, bytes]]


class Payload:
    """An object whose pickle creates a directory when it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.place),)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear layer with a flag and a batch that varies, in a folder named good."""
    path = tmp_path_factory.mktemp("program") / "good.pt2"
    batch = torch.export.Dim("batch", min=1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor, *, mode: str = "plain") -> torch.Tensor:
            return self.layer(x)

    exported = torch.export.export(
        Net().eval(),
        (torch.zeros(2, 4),),
        {"mode": "plain"},
        dynamic_shapes={"x": {0: batch}, "mode": None},
    )
    torch.export.save(exported, path)
    return path


@pytest.fixture(scope="module")
def good(program: Path) -> Entries:
    with zipfile.ZipFile(program) as archive:
        return [(entry.filename, archive.read(entry)) for entry in archive.infolist()]


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """The directory that the code of an attack would create."""
    return tmp_path / "ran"


def pickled(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def written(path: Path, entries: Iterable[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def with_json(good: Entries, end: str, change: Callable[[Any], Any]) -> Entries:
    """The entries, with a change to the document whose name ends so."""
    found: Entries = []
    for name, content in good:
        if name.endswith(end):
            document = json.loads(content)
            content = json.dumps(change(document) or document).encode()
        found.append((name, content))
    assert found != good
    return found


def with_text(good: Entries, old: str, new: str) -> Entries:
    """The entries, with another text everywhere in the graph."""

    def change(value: Any) -> Any:
        if isinstance(value, dict):
            return {change(key): change(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [change(inner) for inner in value]
        return new if value == old else value

    return with_json(good, "models/model.json", change)


def with_pickles(good: Entries, ran: Path) -> Entries:
    """The entries, with weights that are declared and stored as pickles."""

    def change(document: Any) -> None:
        for payload in document["config"].values():
            payload["use_pickle"] = True

    return [
        (name, pickled(Payload(ran)) if "/data/weights/weight_" in name else content)
        for name, content in with_json(good, "weights_config.json", change)
    ]


def refused(path: Path, ran: Path, match: str | None = None) -> None:
    """Check that a program is refused, and has run nothing."""
    with pytest.raises(SourceError, match=match):
        load_program(path).module()(torch.zeros(2, 4), mode="plain")
    assert not ran.exists()


def test_the_program_itself_is_loaded(program: Path) -> None:
    assert load_program(program).module()(torch.zeros(5, 4), mode="plain").shape == (5, 3)


def test_the_format_of_torch_2_7_is_refused(tmp_path: Path, good: Entries, ran: Path) -> None:
    """Without sample inputs torch falls back to it, and unpickles the entries at the root."""
    entries = [(name, content) for name, content in good if "sample_inputs" not in name]
    graph = next(content for name, content in good if "/models/" in name)
    entries += [("version", b"8.15"), ("serialized_exported_program.json", graph)]
    parts = ("state_dict", "constants", "example_inputs")
    entries += [(f"serialized_{part}.pt", pickled(Payload(ran))) for part in parts]
    refused(written(tmp_path / "legacy.pt2", entries), ran, "does not belong there")


def test_sample_inputs_must_be_there(tmp_path: Path, good: Entries, ran: Path) -> None:
    entries = [(name, content) for name, content in good if "sample_inputs" not in name]
    refused(written(tmp_path / "model.pt2", entries), ran, "it has no data/sample_inputs")


def records(entries: Entries, start: int, shift: int = 0) -> tuple[bytes, bytes]:
    """Local records from `start` on, and a central directory whose offsets are less by `shift`."""
    body = directory = b""
    for name, content in entries:
        text, crc, size = name.encode(), zlib.crc32(content), len(content)
        offset = start + len(body) - shift
        fields = (20, 0, 0, 0, 33, crc, size, size, len(text), 0)
        body += struct.pack("<4sHHHHHIIIHH", b"PK\3\4", *fields) + text + content
        fields = (20, 20, 0, 0, 0, 33, crc, size, size, len(text), 0, 0, 0, 0, 0, offset)
        directory += struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", *fields) + text
    return body, directory


def test_a_second_central_directory_is_not_read(tmp_path: Path, good: Entries, ran: Path) -> None:
    """zipfile reads the directory before the end record, miniz the one at the recorded offset.

    The first entries are hostile; the second are those of the good program, with one more that
    makes both directories as long.
    """
    hostile = [*with_pickles(good, ran), ("good/extra/" + "x" * 200, bytes(200_000))]
    body, directory = records(hostile, 0)
    start = len(body) + len(directory)
    lack = len(directory) - len(records(good, start)[1]) - 46 - len("good/extra/")
    benign = [*good, ("good/extra/" + "p" * lack, b"")]
    second = records(benign, start)[0]
    shift = start + len(second) - len(body)
    second_directory = records(benign, start, shift)[1]
    assert len(second_directory) == len(directory)
    end = struct.pack(
        "<4sHHHHIIH", b"PK\5\6", 0, 0, len(hostile), len(hostile), len(directory), len(body), 0
    )
    path = tmp_path / "directories.pt2"
    path.write_bytes(body + directory + second + second_directory + end)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [name for name, _ in benign]
    refused(path, ran, "bytes that belong to none of its entries")


@pytest.mark.parametrize("folder", ["good/DATA/weights", "GOOD/data/weights", "good/data/Weights"])
def test_entries_that_differ_in_case_alone_are_refused(
    tmp_path: Path, good: Entries, ran: Path, folder: str
) -> None:
    hostile = [
        (name.replace("good/data/weights", folder), content)
        for name, content in with_pickles(good, ran)
        if "/data/weights/" in name
    ]
    refused(written(tmp_path / "case.pt2", [*hostile, *good]), ran)
    refused(written(tmp_path / "after.pt2", [*good, *hostile]), ran)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_two_entries_of_one_name_are_refused(tmp_path: Path, good: Entries, ran: Path) -> None:
    path = written(tmp_path / "twice.pt2", [*with_pickles(good, ran), *good])
    refused(path, ran, "two entries named|pickled object")


@pytest.mark.parametrize(
    "name",
    [
        "data/weights/model.pt",
        "data/constants/model.pt",
        "data/constants/opaque_obj_0",
        "data/constants/custom_obj_0",
        "data/aotinductor/model/code.so",
        "models/second.json",
        "../../outside",
        "data/weights/../weights/weight_0",
    ],
)
def test_entries_that_torch_would_unpickle_are_refused(
    tmp_path: Path, good: Entries, ran: Path, name: str
) -> None:
    entries = [*good, (f"good/{name}", pickled(Payload(ran)))]
    refused(written(tmp_path / "model.pt2", entries), ran, "does not belong there")


@pytest.mark.parametrize("kind", ["opaque_obj_0", "custom_obj_0", "tensor_0"])
def test_constants_that_are_objects_are_refused(
    tmp_path: Path, good: Entries, ran: Path, kind: str
) -> None:
    def change(document: Any) -> None:
        pickle = kind == "tensor_0"
        document["config"]["thing"] = {
            "path_name": kind, "is_param": False, "use_pickle": pickle, "tensor_meta": None,
        }  # fmt: skip

    entries = with_json(good, "constants_config.json", change)
    if kind == "tensor_0":
        entries.append(("good/data/constants/tensor_0", pickled(Payload(ran))))
    refused(written(tmp_path / "model.pt2", entries), ran, "pickled object")


@pytest.mark.parametrize(
    "extent",
    [
        "9**9**9**9",
        "Pow(9, Pow(9, 9))",
        "LShift(1, 10**9)",
        "1 << 10**9",
        "Pow(Pow(Pow(9, 64), 64), 64)",
        "((s0**64)**64)**64",
        "floor(1e999999999)",
        "floor(Float('1e999999999'))",
        "PowByNatural(9, 9**9)",
        "FloatPow(9.0, s0)",
        "Mul(9**9**9, 0)",
        "__import__('os').mkdir('x')",
        "S.__class__",
        "eval('1')",
    ],
)
def test_costly_and_foreign_extents_are_refused(
    tmp_path: Path, good: Entries, ran: Path, extent: str
) -> None:
    symbol = next(
        inner["as_expr"]["expr_str"]
        for name, content in good
        if name.endswith("models/model.json")
        for inner in json.loads(content)["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        if "as_expr" in inner
    )
    entries = with_text(good, symbol, extent)
    refused(written(tmp_path / "model.pt2", entries), ran, "extent")


def injections(ran: Path) -> dict[str, Callable[[Entries], Entries]]:
    """Ways into the Python that torch generates of a graph, by what they alter."""
    code = f"__import__('os').mkdir('{ran}')"
    doubled = code.replace("'", "\\'")

    def graph(change: Callable[[Any], Any]) -> Callable[[Entries], Entries]:
        return lambda good: with_json(good, "models/model.json", change)

    def in_graph(change: Callable[[Any], None]) -> Callable[[Entries], Entries]:
        return graph(lambda document: change(document["graph_module"]["graph"]))

    def structure(change: Callable[[Any], None]) -> Callable[[Entries], Entries]:
        def altered(document: Any) -> None:
            signature = document["graph_module"]["module_call_graph"][0]["signature"]
            protocol, root = json.loads(signature["in_spec"])
            change(root)
            signature["in_spec"] = json.dumps([protocol, root])

        return graph(altered)

    def guard(document: Any) -> None:
        document["guards_code"] = [f"{code} or True"]

    def stack(node: Any) -> None:
        node["metadata"]["source_fn_stack"] = f"x,torch.nn.{code}"

    def arguments(document: Any) -> None:
        signature = document["graph_module"]["module_call_graph"][0]["signature"]
        signature["forward_arg_names"] = [f"x={code}", "mode"]

    def enum(root: Any) -> None:
        root["children_spec"][0]["context"] = json.dumps(
            {"__enum__": True, "fqn": "antigravity:x", "name": "x"}
        )

    def factory(root: Any) -> None:
        root["children_spec"][0].update(
            type="collections.defaultdict",
            context={
                "default_factory_module": "antigravity",
                "default_factory_name": "x",
                "dict_context": ["x"],
            },
        )

    def keyword(root: Any) -> None:
        root["children_spec"][1]["context"] = json.dumps([f"mode={code}"])

    def operator(target: str) -> Callable[[Entries], Entries]:
        def change(graph: Any) -> None:
            graph["nodes"][0]["target"] = target

        return in_graph(change)

    def operator_argument(graph: Any) -> None:
        graph["nodes"][0]["inputs"][0]["arg"] = {"as_operator": "torch.hub.load"}

    def object_argument(graph: Any) -> None:
        graph["nodes"][0]["inputs"][0]["arg"] = {
            "as_custom_obj": {"name": "thing", "class_fqn": "os.system"}
        }

    def mode(document: Any) -> Any:
        text = json.dumps(document)
        assert '"plain"' in text
        return json.loads(text.replace('"plain"', json.dumps(f"' or {code} or '")))

    def range_of(document: Any) -> None:
        document["range_constraints"] = {"u99999999999": {"min_val": 2, "max_val": 9}}

    return {
        "name of a node": lambda good: with_text(good, "linear", f"linear;{code};linear"),
        "name of an input": lambda good: with_text(good, "x", f"x={code}"),
        "name of a tensor": lambda good: with_text(
            good, "layer.weight", f'layer.weight", {doubled}, "'
        ),
        "name of an argument": graph(arguments),
        "text of an argument": graph(mode),
        "keyword": structure(keyword),
        "guard": graph(guard),
        "enumeration": structure(enum),
        "default factory": structure(factory),
        "operator as argument": in_graph(operator_argument),
        "object as argument": in_graph(object_argument),
        "number of a symbol": graph(range_of),
        "function of a module": operator("torch.hub.load"),
        "library": operator("torch.ops.load_library.__call__"),
        "file": operator("torch.ops.aten.from_file.default"),
        "attribute": operator("_operator.attrgetter"),
        "call": operator("_operator.call"),
        "method": operator("_operator.methodcaller"),
        "printing": operator("torch.ops.higher_order.print"),
        "attribute of an operator": operator("torch.ops.aten.add.__class__"),
        "extension": operator("#triton:x"),
    }


@pytest.mark.parametrize("way", list(injections(Path())))
def test_graphs_that_would_become_code_are_refused(
    tmp_path: Path, good: Entries, ran: Path, way: str
) -> None:
    entries = injections(ran)[way](good)
    refused(written(tmp_path / "model.pt2", entries), ran, "could run code")


def test_metadata_that_torch_would_look_up_is_left_out(tmp_path: Path, good: Entries) -> None:
    def change(document: Any) -> None:
        for node in document["graph_module"]["graph"]["nodes"]:
            node["metadata"]["source_fn_stack"] = "x,torch.nn.Linear"
            node["metadata"]["from_node"] = "[{}]"

    path = written(tmp_path / "model.pt2", with_json(good, "models/model.json", change))
    for node in load_program(path).graph.nodes:
        assert not {"source_fn_stack", "from_node"} & set(node.meta)


@pytest.mark.parametrize("content", [b"", bytes(48)])
def test_tensors_that_are_declared_far_larger_than_the_file_are_refused(
    tmp_path: Path, good: Entries, ran: Path, content: bytes
) -> None:
    """torch allocates the declared size where the entry is empty; else strides of 0 repeat it."""

    def change(document: Any) -> None:
        for payload in document["config"].values():
            payload["tensor_meta"]["sizes"] = [{"as_int": 1 << 20}, {"as_int": 1 << 20}]
            payload["tensor_meta"]["strides"] = [{"as_int": 0}, {"as_int": 0}]

    entries = [
        (name, content if "/data/weights/weight_" in name else old)
        for name, old in with_json(good, "weights_config.json", change)
    ]
    refused(written(tmp_path / "model.pt2", entries), ran, "many times larger than the file")


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(b"[]", id="list"),
        pytest.param(b"{}", id="empty"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"config": []}', id="no names"),
        pytest.param(b'{"config": {"x": []}}', id="no tensor"),
        pytest.param(b"\xff", id="no text"),
        pytest.param(b"1" * 5000, id="number"),
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
@pytest.mark.parametrize("end", ["models/model.json", "weights_config.json"])
def test_damaged_documents_are_refused(
    tmp_path: Path, good: Entries, ran: Path, end: str, document: bytes
) -> None:
    entries = [(name, document if name.endswith(end) else content) for name, content in good]
    refused(written(tmp_path / "model.pt2", entries), ran)


MUTATIONS: dict[str, Callable[[str], str]] = {
    "none": str,
    "upper": str.upper,
    "capital": str.title,
    "absolute": lambda name: f"/{name}",
    "outside": lambda name: f"../{name}",
    "inside": lambda name: name.replace("/", "/../", 1),
    "dot": lambda name: name.replace("/", "/./", 1),
    "null": lambda name: f"{name}\0.json",
    "backslash": lambda name: name.replace("/", "\\"),
    "root": lambda name: name.partition("/")[2] or name,
    "folder": lambda name: f"other/{name.partition('/')[2]}",
    "shorter": lambda name: name[:-1] or name,
    "longer": lambda name: f"{name}0",
    "directory": lambda name: f"{name}/",
}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_altered_names_of_entries_change_nothing_or_are_refused(
    data: st.DataObject, program: Path, good: Entries, tmp_path: Path
) -> None:
    entries = list(good)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(entries) - 1))
        name, content = entries[place]
        altered = (MUTATIONS[data.draw(st.sampled_from(sorted(MUTATIONS)))](name), content)
        if data.draw(st.booleans()):
            entries[place] = altered
        else:
            entries.insert(data.draw(st.integers(0, len(entries))), altered)
    path = written(tmp_path / "model.pt2", entries)
    rows = torch.ones(2, 4)
    try:
        outputs = load_program(path).module()(rows, mode="plain")
    except SourceError:
        return
    assert torch.equal(outputs, load_program(program).module()(rows, mode="plain"))


class Nested(nn.Module):
    """Inputs by name, a buffer that is expanded, a constant, a branch and names that are no
    identifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(1).expand(4))
        self.layers = nn.ModuleDict({"a-b": nn.Linear(4, 4)})
        self.norm = nn.BatchNorm1d(4)
        self.constant = torch.tensor([1.0, 2.0, 3.0, 4.0])

    def forward(self, rows: dict[str, torch.Tensor], *, scale: float = 2.0) -> dict[str, Any]:
        x = self.norm(self.layers["a-b"](rows["x y"]) * self.mask) + self.constant
        y = torch.cond(x.sum() > 0, lambda t: t.sin(), lambda t: t.cos(), (x,))
        larger = nn.functional.interpolate(y[None, None], scale_factor=2.0)
        products = torch.einsum("ij,kj->ik", x, x)
        return {"out": y * scale, "more": [products, (larger, None)], "last one": {"a b": x}}


@pytest.mark.filterwarnings("ignore:No complete tensor found:UserWarning")
def test_a_nested_program_still_loads(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    module, rows = Nested().eval().requires_grad_(False), {"x y": torch.rand(3, 4)}
    exported = torch.export.export(
        module, (rows,), {"scale": 2.0}, dynamic_shapes={"rows": {"x y": {0: batch}}, "scale": None}
    )
    torch.export.save(exported, tmp_path / "nested.pt2")
    found = load_program(tmp_path / "nested.pt2").module()
    more = {"x y": torch.rand(5, 4)}
    torch.testing.assert_close(found(more, scale=2.0), module(more, scale=2.0))


class Checked(nn.Module):
    """Extents that depend on one another, and a recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrence = nn.LSTM(4, 4, batch_first=True)

    def forward(self, metadata: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, ...]:
        torch._check(metadata.shape[1] % 2 == 0)
        states, _ = self.recurrence(metadata)
        halves = states.reshape(states.shape[0], -1, 8)
        return halves, other[:, : metadata.shape[1] // 2] * 2


@pytest.mark.filterwarnings("ignore:.*assigned during export:UserWarning")
@pytest.mark.filterwarnings("ignore:No complete tensor found:UserWarning")
def test_a_program_with_guards_still_loads(tmp_path: Path) -> None:
    module, given = Checked().eval(), (torch.rand(2, 6, 4), torch.rand(3, 9))
    auto = torch.export.Dim.AUTO
    exported = torch.export.export(
        module, given, dynamic_shapes=({0: auto, 1: auto}, {0: auto, 1: auto})
    )
    torch.export.save(exported, tmp_path / "guards.pt2")
    found = load_program(tmp_path / "guards.pt2").module()
    torch.testing.assert_close(found(*given), module(*given))


@pytest.mark.parametrize("family", ["mlp", "lenet", "idsia"])
def test_the_programs_of_the_families_still_load(tmp_path: Path, family: str) -> None:
    spec = FAMILIES.create(family).spec("torch")
    module = builder(spec, "torch").build(spec).eval()
    rows = torch.rand(2, *spec.signature.inputs[0].shape[1:])
    path = tmp_path / "family.pt2"
    torch.export.save(torch.export.export(module, (rows,)), path)
    torch.testing.assert_close(load_program(path).module()(rows), module(rows))
