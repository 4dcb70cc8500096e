"""toolkit models: what there is, and how large."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from models import FAMILIES
from tests.conftest import Run

TRAINERS_PACKAGES = ("tensorflow", "keras", "jax", "flax")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which no framework but torch can be imported."""
    place = tmp_path_factory.mktemp("bare")
    for name in TRAINERS_PACKAGES:
        (place / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name!r}')")
    places = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(places)}


def test_json_has_every_family_and_needs_torch_alone(
    toolkit_cli: Run, bare: dict[str, str]
) -> None:
    done = toolkit_cli("models", "--json", env=bare)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "toolkit.models/2"
    found = {model["name"]: model for model in document["models"]}
    assert list(found) == FAMILIES.names()
    lenet = found["lenet"]
    assert lenet["parameters"] == 62_006
    assert lenet["state_dict_bytes"] == 248_024
    assert {"torch", "tensorflow", "jax"} <= set(lenet["frameworks"])
    assert lenet["options"] == {}
    assert lenet["signature"]["inputs"][0]["shape"] == ["batch", 3, 32, 32]
    assert found["mlp"]["task"] == {"kind": "regression", "input_shape": [8], "outputs": 1}
    assert found["resnet20"]["options"] == {
        "side": {
            "default": 32,
            "expected": "32 or 48 or 64",
            "help": "Height and width of the images.",
        }
    }


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_the_table_fits_a_terminal(toolkit_cli: Run, columns: int) -> None:
    done = toolkit_cli("models", env={"FORCE_COLOR": "1", "COLUMNS": str(columns)})
    assert done.returncode == 0, done.stderr
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= columns
    rows = {line.split()[0]: line for line in text.splitlines() if line.split()}
    for name in FAMILIES.names():
        assert name in rows
    assert "62,006" in rows["lenet"]
    assert "248,024" in rows["lenet"]
    assert "3x32x32" in rows["lenet"]
    assert "…" not in text
    assert text.count("side=32:") == 1
    told = "side=32: Height and width of the images. Expects 32 or 48 or 64."
    assert told in " ".join(text.split())


def test_every_family_and_option_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    for name in FAMILIES.names():
        assert f"`{name}`" in page
        for option in FAMILIES.create(name).options:
            assert f"`{option}=" in page
