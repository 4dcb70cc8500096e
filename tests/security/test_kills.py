"""Commands killed at a random moment: nothing is lost and nothing left over (see `make kills`).

The tests of `study run` and `optimize` kill these themselves.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kills.py"


@pytest.fixture(scope="module")
def kills() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("kills", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kills"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kills"]


@pytest.fixture(scope="module")
def inputs(kills: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained perceptron and its export."""
    place = tmp_path_factory.mktemp("inputs")
    kills.prepare(place)
    return place


@pytest.mark.parametrize("name", ["bench", "export", "calibrate"])
def test_a_killed_command_loses_nothing_and_leaves_nothing(
    name: str, kills: ModuleType, inputs: Path, tmp_path: Path
) -> None:
    place, temporary = tmp_path / "place", tmp_path / "tmp"
    temporary.mkdir()
    kills.copy_inputs(inputs, place)
    command = kills.COMMANDS[name]
    assert len(kills.kill_often(command, place, temporary, count=1, rng=random.Random(1))) == 1
