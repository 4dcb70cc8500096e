"""The lock files pin, with hashes, what pyproject.toml requires; scripts/lock.py makes them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS = PROJECT["dependency-groups"]
LOCKS = sorted(path.stem for path in (ROOT / "locks").glob("*.txt"))


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scripts_lock", ROOT / "scripts" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their module
    spec.loader.exec_module(module)
    return module


lock = _script()


def _pins(*names: str) -> dict[str, str]:
    """Return the versions that the locks of these names pin, as far as the locks exist."""
    texts = [(ROOT / "locks" / f"{name}.txt").read_text() for name in names if name in LOCKS]
    return {pin.name: pin.version for text in texts for pin in lock.pins_of(text)}


def _required(extras: Iterable[str]) -> list[Requirement]:
    """Return the requirements of extras, with those of the extras that they include."""
    found = []
    for extra in extras:
        for requirement in map(Requirement, PROJECT["project"]["optional-dependencies"][extra]):
            if requirement.name == PROJECT["project"]["name"]:
                found += _required(requirement.extras)
            else:
                found.append(requirement)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_each_line_of_a_lock_has_a_version_and_hashes(name: str) -> None:
    pins = lock.pins_of((ROOT / "locks" / f"{name}.txt").read_text())
    assert pins
    assert [pin.name for pin in pins if not pin.hashes] == []


def test_the_setup_lock_covers_the_dependencies_and_extras() -> None:
    wanted = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    wanted += _required(lock.SETUP_EXTRAS)
    assert _unsatisfied(wanted, _pins("setup", "setup-cuda")) == []
    assert _unsatisfied(wanted, _pins("setup", "setup-cpu")) == []


@pytest.mark.parametrize("group", GROUPS)
def test_each_dependency_group_has_a_lock_that_covers_it(group: str) -> None:
    wanted = [Requirement(line) for line in GROUPS[group]]
    assert _unsatisfied(wanted, _pins(group, f"{group}-cuda")) == []


def test_each_lock_is_of_a_dependency_group() -> None:
    assert {name.removesuffix("-cuda").removesuffix("-cpu") for name in LOCKS} == {
        lock.SETUP,
        *GROUPS,
    }


def test_the_setup_lock_covers_what_its_packages_require() -> None:
    """Checks the packages that are installed in the pinned version, by their metadata."""
    cuda, cpu = _pins("setup", "setup-cuda"), _pins("setup", "setup-cpu")
    pins = cpu if importlib.metadata.version("torch") == cpu.get("torch") else cuda
    packages = [*importlib.metadata.distributions()]
    pinned = [
        package
        for package in packages
        if pins.get(canonicalize_name(package.name)) == package.version
    ]
    assert len(pinned) > 10
    for package in pinned:
        wanted = [Requirement(line) for line in package.requires or ()]
        assert _unsatisfied(wanted, pins) == [], package.name


def test_the_constraints_are_the_versions_of_the_setup_lock() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    versions = [Requirement(line) for line in lines if not line.startswith("#")]
    pins = _pins("setup", "setup-cuda")
    assert {each.name: str(each.specifier) for each in versions} == {
        name: f"=={version}" for name, version in pins.items()
    }


def _unsatisfied(wanted: Iterable[Requirement], pins: dict[str, str]) -> list[str]:
    """Return the requirements for this platform, without extras, that no pin satisfies."""
    return [
        str(each)
        for each in wanted
        if (each.marker is None or each.marker.evaluate({"extra": ""}))
        and not each.specifier.contains(
            pins.get(canonicalize_name(each.name), "0.dev0+missing"), prereleases=True
        )
    ]


COMPILED = f"""
filelock==3.0 \\
    --hash=sha256:{"1" * 64}
    # via torch
nvidia-cublas==13.0 ; sys_platform == 'linux' \\
    --hash=sha256:{"2" * 64}
    # via
    #   cuda-toolkit
    #   nvidia-cudnn
nvidia-cudnn==9.0 ; platform_machine == 'x86_64' and sys_platform == 'linux' \\
    --hash=sha256:{"3" * 64}
    # via torch
cuda-toolkit==13.0 ; sys_platform == 'linux' \\
    --hash=sha256:{"4" * 64}
    # via torch
cuda-bindings==13.0 ; sys_platform == 'linux' \\
    --hash=sha256:{"5" * 64}
    # via
    #   inference-toolkit (pyproject.toml)
    #   torch
colorama==0.4 ; sys_platform == 'win32' \\
    --hash=sha256:{"6" * 64}
    # via torch
torch==2.0 \\
    --hash=sha256:{"7" * 64} \\
    --hash=sha256:{"8" * 64}
    # via inference-toolkit (pyproject.toml)
"""


def test_pypi_s_torch_and_what_only_it_needs_on_linux_are_split_off() -> None:
    common, pypi = lock.split_by_build(lock.pins_of(COMPILED))
    assert [pin.name for pin in pypi] == ["nvidia-cublas", "nvidia-cudnn", "cuda-toolkit", "torch"]
    assert [pin.name for pin in common] == ["filelock", "cuda-bindings", "colorama"]


def test_a_lock_is_read_as_it_was_written() -> None:
    pins = lock.pins_of(COMPILED)
    assert lock.pins_of("".join(map(str, pins))) == pins


def test_recorded_hashes_of_the_cpu_build_stay_until_its_version_changes() -> None:
    torch = lock.pins_of(COMPILED)[-1]
    (first,) = lock.cpu_build(torch, ["a" * 64], recorded=[])
    assert (first.version, first.hashes) == ("2.0+cpu", {"a" * 64})
    (same,) = lock.cpu_build(torch, ["b" * 64], recorded=[first])
    assert same.hashes == {"a" * 64, "b" * 64}
    newer = lock.pins_of(COMPILED.replace("torch==2.0", "torch==2.1"))[-1]
    assert lock.cpu_build(newer, [], recorded=[same]) == []


@pytest.mark.parametrize("line", ["--extra-index-url file:///x", "torch>=2", "torch @ file:///x"])
def test_a_line_that_is_no_pin_is_an_error(line: str) -> None:
    with pytest.raises(lock.LockError, match="not of the form name==version"):
        lock.pins_of(f"{line}\n")
