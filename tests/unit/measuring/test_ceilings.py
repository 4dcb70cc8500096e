"""Ceilings on the disk: found for this machine and number of threads, and for no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.core.codec import decode, encode
from toolkit.core.documents import Json
from toolkit.core.errors import IntegrityError, SourceError, ToolkitError
from toolkit.measuring.machine.environment import describe_environment
from toolkit.measuring.machine.roofline import (
    Ceilings,
    absent_instructions,
    prepare,
    store,
    stored,
    stored_threads,
)

CPU: Json = {
    "model": "One",
    "flags": ["avx2", "fma"],
    "available_cores": 4,
    "container_cores": None,
    "governor": "performance",
}
CEILINGS = Ceilings(
    threads=2,
    measured="2026-01-01T00:00:00+00:00",
    operations_per_second={"float32": 4e11},
    absent={"int8": "the processor has none of the instructions"},
    copy_bytes_per_second=4e10,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "inference-toolkit"


def test_what_is_stored_is_found_again(cache: Path) -> None:
    path = store(CEILINGS, CPU)
    assert path.is_relative_to(cache)
    assert stored(CPU, 2) == CEILINGS
    assert stored_threads(CPU) == [2]


def test_the_last_ones_count() -> None:
    store(CEILINGS, CPU)
    newer = Ceilings(**{**vars(CEILINGS), "operations_per_second": {"float32": 3e11}})
    store(newer, CPU)
    assert stored(CPU, 2) == newer


def test_numbers_of_threads_do_not_mix() -> None:
    store(CEILINGS, CPU)
    assert stored(CPU, 1) is None
    for threads in (16, 1, 9, 128):
        store(Ceilings(**{**vars(CEILINGS), "threads": threads}), CPU)
    assert stored_threads(CPU) == [1, 2, 9, 16, 128]
    assert stored(CPU, 2) == CEILINGS


@pytest.mark.parametrize(
    "other",
    [
        {"model": "Two"},
        {"flags": ["avx2"]},
        {"available_cores": 2},
        {"container_cores": 1.5},
    ],
)
def test_those_of_another_machine_are_not_found(other: Json) -> None:
    store(CEILINGS, CPU)
    assert stored({**CPU, **other}, 2) is None
    assert stored_threads({**CPU, **other}) == []


def test_those_of_another_machine_are_refused_where_they_were_moved() -> None:
    elsewhere = {**CPU, "model": "Two"}
    target = store(CEILINGS, elsewhere)
    store(CEILINGS, CPU).replace(target)
    with pytest.raises(SourceError, match="another machine"):
        stored(elsewhere, 2)


def test_the_governor_makes_no_other_machine() -> None:
    store(CEILINGS, CPU)
    assert stored({**CPU, "governor": "powersave"}, 2) == CEILINGS


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", SourceError),
        (b"\xff\x00", SourceError),
        (b"[]", SourceError),
        (b'{"schema": "toolkit.ceilings/0"}', SourceError),
        (b'{"schema": "toolkit.ceilings/1", "digest": "sha256:0"}', IntegrityError),
    ],
)
def test_a_file_that_cannot_be_read(content: bytes, error: type[ToolkitError]) -> None:
    path = store(CEILINGS, CPU)
    path.write_bytes(content)
    with pytest.raises(error, match=str(path)):
        stored(CPU, 2)


def test_a_figure_that_was_altered_is_refused() -> None:
    path = store(CEILINGS, CPU)
    path.write_text(path.read_text().replace("40000000000", "90000000000"))
    with pytest.raises(IntegrityError):
        stored(CPU, 2)


def test_a_place_that_is_a_file(cache: Path) -> None:
    cache.write_text("")
    with pytest.raises(ToolkitError, match="Could not store ceilings in"):
        prepare(CPU)
    with pytest.raises(ToolkitError):
        store(CEILINGS, CPU)
    assert stored(CPU, 2) is None


@pytest.mark.parametrize(
    ("precision", "flags", "there"),
    [
        ("float32", [], True),
        ("bfloat16", ["avx2", "fma"], False),
        ("bfloat16", ["avx512_bf16"], True),
        ("bfloat16", ["amx_bf16", "amx_tile"], True),
        ("bfloat16", ["asimd", "bf16"], True),
        ("int8", ["avx512f", "avx512bw"], False),
        ("int8", ["avx_vnni"], True),
        ("int8", ["ASIMDDP"], True),
        ("int8", ["amx_bf16"], False),
    ],
)
def test_a_precision_without_instructions_has_no_ceiling(
    precision: str, flags: list[str], there: bool
) -> None:
    assert (absent_instructions(precision, {**CPU, "flags": flags}) is None) == there


def test_the_environment_carries_those_of_its_threads() -> None:
    here = describe_environment()["cpu"]
    assert describe_environment(threads=2)["ceilings"] is None
    path = store(CEILINGS, here)
    assert describe_environment(threads=2)["ceilings"] == encode(CEILINGS)
    assert describe_environment(threads=1)["ceilings"] is None
    assert describe_environment()["ceilings"] is None
    path.write_bytes(b"cut o")
    assert describe_environment(threads=2)["ceilings"] is None


def test_ceilings_survive_json() -> None:
    assert decode(json.loads(json.dumps(encode(CEILINGS))), Ceilings, "a test") == CEILINGS
