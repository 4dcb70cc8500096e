"""Exported programs of other makers are checked before torch reads them."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from exporters.torch_program import tensors_of
from models.torch.example import explained, traced
from models.torch.program import check_archive, load_program, signature_of_program
from models.torch.program_checks import is_arithmetic
from toolkit.core.errors import SourceError
from toolkit.sources.resolve import open_artifact


class Runs:
    """Its pickle makes a directory when it is opened."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.place),)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(net, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: batch},))
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    torch.export.save(exported, path)
    return path


Change = Callable[[str, bytes], bytes]


def rewritten(
    source: Path, path: Path, change: Change, extra: dict[str, bytes] | None = None
) -> Path:
    """The archive with each entry changed, uncompressed as torch writes it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, content in (extra or {}).items():
            new.writestr(f"{root}/{name}" if not name.startswith("..") else name, content)
    return path


def same(name: str, content: bytes) -> bytes:
    return content


def in_graph(old: str, new: str) -> Change:
    def change(name: str, content: bytes) -> bytes:
        if "/models/" not in name:
            return content
        assert old.encode() in content, content[:2000]
        return content.replace(old.encode(), new.encode())

    return change


def test_what_torch_wrote_is_opened(program: Path, tmp_path: Path) -> None:
    outputs = load_program(program).module()(torch.zeros(5, 3, 8, 8))
    assert outputs.shape == (5, 2)
    check_archive(rewritten(program, tmp_path / "copy.pt2", same))


def test_a_pickled_weight_is_refused_and_not_run(program: Path, tmp_path: Path) -> None:
    place = tmp_path / "was-run"

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("weights_config.json"):
            return content
        config = json.loads(content)
        payload = next(iter(config["config"].values()))
        payload["use_pickle"], payload["path_name"] = True, "weight_99"
        return json.dumps(config).encode()

    evil = {"data/weights/weight_99": pickle.dumps(Runs(place))}
    path = rewritten(program, tmp_path / "evil.pt2", change, evil)
    with pytest.raises(SourceError, match="pickled object"):
        load_program(path)
    assert not place.exists()


def test_pickled_sample_inputs_are_refused_and_not_run(program: Path, tmp_path: Path) -> None:
    place = tmp_path / "was-run"
    stream = io.BytesIO()
    torch.save(Runs(place), stream)

    def change(name: str, content: bytes) -> bytes:
        return stream.getvalue() if "/sample_inputs/" in name and name.endswith(".pt") else content

    path = rewritten(program, tmp_path / "evil.pt2", change)
    with pytest.raises(SourceError, match="pickle of more than tensors"):
        load_program(path)
    assert not place.exists()


def test_an_extent_that_is_python_is_refused_and_not_run(program: Path, tmp_path: Path) -> None:
    place = tmp_path / "was-run"
    with zipfile.ZipFile(program) as archive:
        (name,) = (n for n in archive.namelist() if "/models/" in n and n.endswith(".json"))
        text = archive.read(name).decode()
    symbol = text.split('"expr_str"')[1].split('"')[1]
    evil = f"__import__('os').mkdir('{place}')"
    path = rewritten(
        program, tmp_path / "evil.pt2",
        lambda n, c: c.replace(f'"expr_str": "{symbol}"'.encode(), f'"expr_str": "{evil}"'.encode())
        .replace(f'"expr_str":"{symbol}"'.encode(), f'"expr_str":"{evil}"'.encode())
        if "/models/" in n else c,
    )  # fmt: skip
    with pytest.raises(SourceError, match="extent"):
        load_program(path)
    assert not place.exists()


def test_an_operator_that_is_none_is_refused(program: Path, tmp_path: Path) -> None:
    change = in_graph("torch.ops.aten.conv2d.default", "torch.hub.load")
    path = rewritten(program, tmp_path / "evil.pt2", change)
    with pytest.raises(SourceError, match=r"operator 'torch\.hub\.load'"):
        load_program(path)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("data/aotinductor/model/code.so", "does not belong there"),
        ("../../outside", "does not belong there"),
        ("models/second.json", "does not belong there"),
        ("data/constants/model.pt", "does not belong there"),
        ("data/constants/opaque_obj_0", "does not belong there"),
        ("data/weights/WEIGHT_0", "does not belong there"),
    ],
)
def test_entries_that_do_not_belong_there_are_refused(
    program: Path, tmp_path: Path, name: str, match: str
) -> None:
    content = b"{}" if name.endswith(".json") else b"\x80\x02x"
    path = rewritten(program, tmp_path / "evil.pt2", same, {name: content})
    with pytest.raises(SourceError, match=match):
        check_archive(path)


def test_an_archive_that_unpacks_to_far_more_is_refused(program: Path, tmp_path: Path) -> None:
    path = rewritten(program, tmp_path / "bomb.pt2", same)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data/weights/weight_9", bytes(50_000_000))
    with pytest.raises(SourceError, match="many times its size"):
        check_archive(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"text", os.urandom(500)], ids=["", "PK", "t", "r"]
)
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="not an exported program"):
        load_program(path)


@pytest.mark.parametrize(
    "text",
    [
        "Pow(Symbol('s0', positive=True, integer=True), Integer(-1))",
        "s0**2",
        "Symbol('s31', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s0', positive=True, integer=True))",
        "2*s0 + Max(1, s1)",
        "FloorDiv(s0, 2)",
        "(s0 + 1)**2 >= 4",
        "-int_oo",
    ],
)
def test_extents_are_arithmetic(text: str) -> None:
    assert is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "Symbol.__class__",
        "S('print(1)')",
        "sympify('print(1)')",
        "Symbol('print(1)')",
        "(lambda: 1)()",
        "[s0 for s0 in (1,)]",
        "Function('f')(s0)",
        "s0.x",
        "s0[0]",
        "f'{s0}'",
        "Symbol(b'x')",
        "1 if s0 else 2",
        "s0;s1",
        "",
        "(" * 5000,
        "9**9**9**9",
        "(9**64)**64",
        "Pow(9, Pow(9, 9))",
        "Pow(Integer(2), s0)",
        "LShift(1, 100000)",
        "1 << 100000",
        "2**True",
    ],
)
def test_extents_that_are_more_than_arithmetic_are_told(text: str) -> None:
    assert not is_arithmetic(text)


class FewRows(nn.Module):
    """Its output is a dict, so that its program is not exported as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.linear(x) if x.shape[0] < 64 else x[:, :3]}


def test_a_program_for_few_rows_is_exported_for_as_many(tmp_path: Path) -> None:
    x = torch.zeros(2, 5)
    program = torch.export.export(FewRows(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, tmp_path / "model.pt2")
    source = open_artifact(tmp_path / "model.pt2")
    for batch in (2, 64):
        found = traced(source, batch=batch)
        assert signature_of_program(found).inputs[0].shape == ("batch", 5)
        (limits,) = found.range_constraints.values()
        assert limits.upper == 63


class Sums(nn.Module):
    """Two parameters that are added in place to lists of tensors, and one that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.rand(3)) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [torch.zeros_like(x), x.clone()]
        torch._foreach_add_(parts, [self.a, self.b])
        torch.zeros_like(x).add_(self.c)
        return parts[0] * parts[1]


def test_a_weight_is_read_if_it_is_written_into_what_an_output_needs() -> None:
    stored = tensors_of(torch.export.export(Sums(), (torch.rand(2, 3),)))
    assert {tensor.name: bool(tensor.readers) for tensor in stored} == {
        "a": True, "b": True, "c": False
    }  # fmt: skip


class Deciding(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x - 1


def test_a_model_that_decides_by_values_is_refused_with_a_remedy() -> None:
    with pytest.raises(SourceError) as caught, explained("net.py:Net"):
        torch.export.export(Deciding(), (torch.rand(2, 3),))
    assert "torch.where" in str(caught.value.hint)
