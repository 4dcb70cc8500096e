"""Packages of AOTInductor: what is read from them without running them, and what is refused."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from exporters import torch_aotinductor
from exporters.base import ExportOptions, StoredTensor
from exporters.proof.weight_parity import Match, WeightParity, compare
from exporters.torch_aotinductor import AotInductorTensors, TorchAotInductor
from models.torch.compiler import missing_compiler
from models.torch.example import dynamic_shapes, example
from models.torch.package import LIBRARY, METADATA, WRAPPER
from models.torch.program import module_of
from toolkit.core.artifact import Checkpoint
from toolkit.core.errors import SourceError, UnavailableError
from toolkit.sources.resolve import open_artifact

E_MACHINE, AARCH64 = 18, b"\xb7\x00"  # where an ELF file says its architecture, and one of them


@pytest.fixture(scope="module")
def package(checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("aotinductor")
    source = Checkpoint.load(checkpoint_dir).artifact()
    exported = TorchAotInductor().export(source, place, ExportOptions())
    return place / exported.entry


@pytest.fixture(scope="module")
def weights(checkpoint_dir: Path) -> dict[str, np.ndarray]:
    return Checkpoint.load(checkpoint_dir).weights()


Change = Callable[[bytes], bytes]


@pytest.fixture
def altered(package: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the package, whole as an archive, with the entry of a suffix changed."""

    def make(suffix: str, change: Change, **how: int) -> Path:
        path = tmp_path / "altered.pt2"
        with zipfile.ZipFile(package) as old, zipfile.ZipFile(path, "w", **how) as new:
            for name in old.namelist():
                content = old.read(name)
                if name.endswith(suffix):
                    assert change(content) != content or how
                    content = change(content)
                new.writestr(name, content)
        return path

    return make


def read(path: Path) -> list[StoredTensor]:
    return list(AotInductorTensors().stored_tensors(path))


def proof(weights: dict[str, np.ndarray], path: Path) -> WeightParity:
    return compare(weights, read(path))


def entry(package: Path, suffix: str) -> bytes:
    with zipfile.ZipFile(package) as archive:
        return next(archive.read(n) for n in archive.namelist() if n.endswith(suffix))


def in_text(old: str, new: str) -> Change:
    return lambda content: content.replace(old.encode(), new.encode(), 1)


def without(word: str) -> Change:
    """Every line but those that have the word."""
    return lambda content: b"\n".join(
        line for line in content.split(b"\n") if word.encode() not in line
    )


def test_every_weight_is_there_bit_for_bit(package: Path, weights: dict[str, np.ndarray]) -> None:
    parity = proof(weights, package)
    assert parity.passed
    assert parity.count(Match.IDENTICAL) == len(weights) == 10
    readers = {tensor.name: tensor.readers for tensor in read(package)}
    assert readers["fc2.weight"] == readers["fc2.bias"]
    assert readers["fc2.weight"][0].startswith("addmm_out")
    assert readers["conv1.weight"][0].startswith("cpp_fused_convolution_0")


class Tempered(torch.nn.Module):
    """Similarities times the exponential of a single number, as CLIP has them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(6, 5)
        self.logit_scale = torch.nn.Parameter(torch.tensor(2.6))
        self.logit_bias = torch.nn.Parameter(torch.tensor([-10.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.logit_scale.exp() + torch.tanh(self.logit_bias)


def test_single_numbers_are_weights_too(tmp_path: Path) -> None:
    module = Tempered()
    x = torch.ones(3, 6)
    program = torch.export.export(module, (x,), dynamic_shapes=[{0: torch.export.Dim("batch")}])
    torch.export.save(program, tmp_path / "source.pt2")
    (tmp_path / "package").mkdir()
    source = open_artifact(tmp_path / "source.pt2")
    exported = TorchAotInductor().export(source, tmp_path / "package", ExportOptions())
    weights = {name: value.detach().numpy() for name, value in module.named_parameters()}
    parity = proof(weights, tmp_path / "package" / exported.entry)
    assert parity.passed
    assert parity.count(Match.IDENTICAL) == len(weights) == 4


@pytest.mark.parametrize("name", ["conv1.weight", "conv1.bias", "fc3.bias"])
@pytest.mark.parametrize("at", [0, -1])
def test_a_flipped_bit_is_found(
    package: Path, weights: dict[str, np.ndarray], altered: Callable[..., Path], name: str, at: int
) -> None:
    held = weights[name].tobytes()
    library = entry(package, LIBRARY)
    assert library.count(held) == 1
    place = library.index(held) + at % len(held)

    def flip(content: bytes) -> bytes:
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    parity = proof(weights, altered(LIBRARY, flip))
    assert {(t.name, t.match) for t in parity.failures()} >= {(name, Match.ALTERED)}
    assert {t.name for t in parity.failures()} == {name}


def test_a_weight_that_nothing_reads_is_unused(
    weights: dict[str, np.ndarray], altered: Callable[..., Path]
) -> None:
    path = altered(WRAPPER, without(", fc2_bias, "))
    parity = proof(weights, path)
    assert {t.name: t.match for t in parity.failures()} == {
        "fc2.weight": Match.UNUSED,
        "fc2.bias": Match.UNUSED,
    }


@pytest.mark.parametrize(
    ("suffix", "change", "told"),
    [
        (LIBRARY, lambda c: c[: len(c) // 2], "library"),
        (LIBRARY, lambda c: b"", "library cannot be read"),
        (LIBRARY, lambda c: b"#!" + c[2:], "library cannot be read"),
        (LIBRARY, lambda c: c.replace(b"constants_bin_end", b"constants_bin_eno"), "library"),
        (LIBRARY, lambda c: c[:E_MACHINE] + AARCH64 + c[E_MACHINE + 2 :], "EM_AARCH64"),
        (WRAPPER, lambda c: b"", "table of constants"),
        (WRAPPER, lambda c: b"\xff", "no package"),
        (WRAPPER, without("constants_info_[3]"), "table of constants"),
        (WRAPPER, without("constants_info_[9]"), "table of constants"),
        (WRAPPER, without("].stride"), "table of constants"),
        (WRAPPER, without("::run_impl"), "no entry"),
        (WRAPPER, in_text(".data_size = 1856", ".data_size = 1920"), "bytes of constants"),
        (WRAPPER, in_text(".shape = {6, 3, 5, 5}", ".shape = {6, 3, 5, 500}"), "larger than"),
        (WRAPPER, in_text(".stride = {75, 25", ".stride = {7500000, 25"), "cannot be read"),
        (WRAPPER, in_text(".offset = 0", ".offset = 99999"), "cannot be read"),
        (WRAPPER, in_text("_torch_dtype_float32;", "_torch_dtype_float33;"), "cannot be read"),
        (WRAPPER, in_text("from_folded = false", "from_folded = true"), "folded or packed"),
        (METADATA, lambda c: b"{", "no package"),
        (METADATA, in_text("x86_64", "s390x"), "compiled for"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(
    altered: Callable[..., Path], suffix: str, change: Change, told: str
) -> None:
    with pytest.raises(SourceError, match=told):
        read(altered(suffix, change))


def test_two_rows_that_change_names_are_found(
    weights: dict[str, np.ndarray], altered: Callable[..., Path]
) -> None:
    def swap(content: bytes) -> bytes:
        one, other = b'original_fqn = "conv2.bias"', b'original_fqn = "fc3.bias"'
        return content.replace(one, b"?").replace(other, one).replace(b"?", other)

    assert not proof(weights, altered(WRAPPER, swap)).passed


def test_what_could_unpack_to_any_size_is_refused(altered: Callable[..., Path]) -> None:
    path = altered(LIBRARY, lambda c: c, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(SourceError, match="compressed"):
        read(path)


def test_operators_are_counted(package: Path) -> None:
    found = AotInductorTensors().operators(package)
    assert found["convolution"] == 2
    assert found["addmm_out"] == 3
    assert sum(name.startswith("cpp_fused_") for name in found) == sum(found.values()) - 5


def test_no_path_of_this_machine_is_left(package: Path, checkpoint_dir: Path) -> None:
    content = package.read_bytes()
    packages = Path(torch.__file__).parent.parent
    for place in (packages, Path.cwd(), Path.home(), checkpoint_dir, "toolkit-"):
        assert str(place).encode() not in content, place


@pytest.mark.parametrize("batch", [2, 64])
def test_no_extent_of_the_batch_is_taken_for_granted(
    checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Else it is compiled for the batches on the example's side of 16. Nothing is compiled here."""
    source = Checkpoint.load(checkpoint_dir).artifact()
    module = module_of(source)
    program = torch.export.export(
        module,
        example(source, batch=batch),
        dynamic_shapes=dynamic_shapes(source, module),
    )
    asked = {"aot_inductor.package_cpp_only": True, "aot_inductor.check_lowerbound": True}
    monkeypatch.setattr(torch_aotinductor, "CONFIG", {**torch_aotinductor.CONFIG, **asked})
    text = entry(torch_aotinductor._compile(program, tmp_path), WRAPPER).decode()
    bounds = re.findall(r"dim value is too \w+ at 0.*?be (\S+ \d+)", text, re.DOTALL)
    assert bounds == [">= 2"]


def test_a_package_of_somebody_s_is_refused(package: Path) -> None:
    with pytest.raises(SourceError, match="without trusting it"):
        AotInductorTensors().describe(package)
    with pytest.raises(SourceError, match=r"data/aotinductor/.*does not belong there"):
        open_artifact(package)


def test_without_a_compiler_the_export_says_so(
    checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        reason = missing_compiler()
    assert reason
    assert "C++ compiler" in reason
    monkeypatch.setattr(torch_aotinductor, "missing_compiler", lambda: reason)
    source = Checkpoint.load(checkpoint_dir).artifact()
    with pytest.raises(UnavailableError, match=r"C\+\+ compiler") as caught:
        TorchAotInductor().export(source, tmp_path, ExportOptions())
    assert "apt-get install g++" in caught.value.hint
    assert not list(tmp_path.iterdir())
