"""A user's own modules beside his script, named as our packages are, are his."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_start  # the order of imports matters

NAMES = ("models", "runtimes", "exporters", "calibration")

HELPERS = """
import sys

def check_mine():
    import calibration, models, runtimes, exporters
    found = {models.WHOSE, runtimes.WHOSE, exporters.WHOSE, calibration.WHOSE}
    assert found == {"user"}, "mine were replaced"

def check_toolkit():
    import toolkit
    path = list(sys.path)
    info = toolkit.models()
    assert sys.path == path, "the path was changed"
    assert info[0].name == "lenet" and info[0].parameters == 62_006
"""

SCRIPTS = {
    "mine no longer on the path": "check_mine(); del sys.path[0]; check_toolkit(); check_mine()",
    "mine first": "check_mine(); mine = sys.modules['models']; check_toolkit(); check_mine()\n"
    "assert sys.modules['models'] is mine, 'loaded anew'",
    "toolkit imported first": "import toolkit; check_mine(); check_toolkit(); check_mine()",
    "toolkit used first": "check_toolkit(); check_mine(); check_toolkit(); check_mine()",
    "one of mine after each use": "import exporters; check_toolkit(); import runtimes\n"
    "check_toolkit(); import models; check_mine()",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("WHOSE = 'user'\n")
    return tmp_path


def run(place: Path, source: str) -> None:
    script = place / "script.py"
    script.write_text(HELPERS + source)
    command = [sys.executable, script.name]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("source", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_each_side_keeps_its_own(place: Path, source: str):
    run(place, source)


def test_package_of_the_user_keeps_its_submodules(place: Path):
    (place / "models.py").unlink()
    (place / "models").mkdir()
    (place / "models" / "__init__.py").write_text("WHOSE = 'user'\n")
    (place / "models" / "lenet.py").write_text("WHOSE = 'user'\n")
    run(
        place,
        "import toolkit; check_toolkit()\n"
        "import models.lenet; check_toolkit(); check_mine()\n"
        "assert models.lenet.WHOSE == 'user'\n"
        "assert sys.modules['models.lenet'] is models.lenet\n"
        "assert 'models.torch.lenet' not in sys.modules",
    )


def test_unshadowed_names_are_ours(tmp_path: Path):
    run(tmp_path, "check_toolkit(); import models; assert models.FAMILIES.names()[0] == 'lenet'")


def test_command_line_runs_beside_the_users_modules(place: Path):
    run(
        place,
        "from toolkit.cli.main import main; sys.argv = ['toolkit', 'models', '--json']\n"
        "try: main()\n"
        "except SystemExit as error: assert not error.code",
    )


def test_onnx_file_opens_beside_the_users_exporters(place: Path):
    run(
        place,
        "import onnx, toolkit\n"
        "from onnx import helper\n"
        "x, y = (helper.make_tensor_value_info(n, 1, ['n', 2]) for n in 'xy')\n"
        "graph = helper.make_graph([helper.make_node('Relu', ['x'], ['y'])], 'g', [x], [y])\n"
        "onnx.save(helper.make_model(graph, ir_version=10), 'm.onnx')\n"
        "toolkit.load('m.onnx', 'null').close()",
    )
