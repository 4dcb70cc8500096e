"""The commands of the README and of the pages, in order, a page at a time, as a reader runs them.

The README comes first: the pages use the files that it makes. A command that another test runs with
the same options is only parsed. A command that needs a GPU must be refused with a reason.
Measurements are shorter than the page says.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from typer.main import get_command

from tests.conftest import MAIN_PATH, TOOLKIT, run_toolkit
from tests.mxnet_env import mxnet_python
from toolkit.cli.main import app

# The README is one fixture, and longer than a test.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))

ELSEWHERE = {
    "make demo": "tests/cli/test_main_job.py",
    "make mxnet-env": ".ci/run",
    "make gpu-check": "tests/cli/test_gpu_check.py",
    "pip install -c constraints.txt '.[cpu]'": "Makefile",
    "ray start --head": "tests/cli/test_study_ray.py",
    "ray start --address HEAD:6379": "tests/cli/test_study_ray.py",
}
"""Commands that are not of `toolkit`, and where they run."""

TESTED = {
    "docs/bench-training.md": {"toolkit bench-training ": "test_bench_training.py"},
    "docs/export.md": {"toolkit bench net.py:Net ": "test_code_sources.py"},
    "docs/optimize.md": {"toolkit optimize ": "test_optimize.py"},
    "docs/report.md": {
        "toolkit results push ": "test_mlflow.py",
    },
    "docs/studies.md": {"toolkit study run study.toml ": "test_study_ray.py"},
}
"""By page, the beginnings of commands that a test in tests/cli runs with the same options."""

INSTEAD = {
    "README.md": {
        "--budget 30s": "--budget 5s",
        "--max-seconds 5": "--max-seconds 0.5",
        "study run lenet-deployment": "study run lenet-deployment.toml",
    },
    "docs/studies.md": {"study run lenet-deployment": "study run lenet-deployment.toml"},
    "docs/others.md": {"1x3x320x320": "1x3x64x64"},
    "docs/gpu.md": {
        "--data cifar10 --epochs 60": "--data digits --epochs 1",  # no network
        "--data cifar10": "--data digits",
        "bench lenet-trt": "bench lenet-onnx",  # no engine is built here
        "bench lenet-tripy": "bench lenet-onnx",
    },
}
"""What a command is run with here in the place of what the page says."""

NEEDS_GPU = ("--device cuda", "--to tensorrt --", "--to tripy ")
UNCLEAR = 3  # what a comparison ends with where it cannot tell: an answer too
COMPARES = (" compare ", "--max-drop 0.5")
BRIEF = {
    "toolkit bench ": " --max-seconds 0.5 --processes 1",
    "toolkit compare ": " --max-seconds 0.5",
}

SHORTER = {
    '"torch", "torch-compile", "onnxruntime"': '"torch", "onnxruntime"',
    "quick = { epochs = 15,": "quick = { epochs = 3,",
    "batch = [1, 100, 1000], max_seconds = 4": "batch = [1000], max_seconds = 1",
}
"""What the study of the README is run with here."""

NET = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 4, 3)
    def forward(self, image):
        return self.layer(image).mean((2, 3))
"""
PRELUDES = {
    "docs/optimize.md": "import numpy as np; images = np.zeros((64, 3, 32, 32), np.float32)",
}


def blocks_of(text: str) -> list[list[str]]:
    """The commands of each fenced block: of a console those behind a prompt, of a workflow ours."""
    found = []
    for kind, block in re.findall(r"```(sh|console|yaml)\n(.*?)```", text, re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        if kind == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        elif kind == "yaml":
            lines = [line.strip() for line in lines if line.strip().startswith("toolkit ")]
        found.append([line.partition("  #")[0].strip() for line in lines if line.strip()])
    return [block for block in found if block]


def execute(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line; through a shell only if it has something for one."""
    if command.startswith("toolkit ") and not set(command) & set("|&;<>()$`*?\\"):
        return run_toolkit(*shlex.split(command)[1:], cwd=place, timeout=1000)
    return subprocess.run(
        ["bash", "-c", command],
        cwd=place,
        env={**os.environ, "PATH": f"{TOOLKIT.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def is_tested_elsewhere(command: str, page: str) -> bool:
    """Whether another test runs the command. Then it is parsed, to see that its options exist."""
    if command in ELSEWHERE or (page == "README.md" and command.split()[1:] in MAIN_PATH):
        return True
    if not any(command.startswith(beginning) for beginning in TESTED.get(page, {})):
        return False
    found: click.Command = get_command(app)
    words = shlex.split(command.partition(" > ")[0])[1:]
    while isinstance(found, click.Group):
        found = found.commands[words.pop(0)]
    found.make_context(found.name, words)
    return True


def run_block(block: list[str], place: Path, page: str) -> None:
    for command in block:
        if is_tested_elsewhere(command, page):
            continue
        for told, here in INSTEAD.get(page, {}).items():
            command = command.replace(told, here)
        if "--runs" not in command and "--max-seconds" not in command:
            brief = next((BRIEF[one] for one in BRIEF if command.startswith(one)), "")
            head, redirected, tail = command.partition(" > ")
            command = f"{head}{brief}{redirected}{tail}"
        if command.startswith("cd "):
            place = place / command[3:]
            continue
        for out in re.findall(r"--out (\S+)", command):
            if (place / out).is_dir() and "study" not in command:
                shutil.rmtree(place / out)
        done = execute(command, place)
        if any(one in command for one in NEEDS_GPU):
            assert done.returncode not in (0, 1), (command, done.stdout)
            assert "Traceback" not in done.stderr, (command, done.stderr)
            assert re.search(r"hint|CUDA|tensorrt|tripy", done.stderr + done.stdout), command
        else:
            allowed = (0, UNCLEAR) if any(one in command for one in COMPARES) else (0,)
            assert done.returncode in allowed, (command, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def readme(tmp_path_factory: pytest.TempPathFactory, main_path: Path) -> Path:
    """The directory in which the README's commands were run, after those of `main_path`."""
    place = tmp_path_factory.mktemp("readme")
    shutil.copytree(main_path, place, dirs_exist_ok=True)
    (place / "net.py").write_text(NET)
    study = (ROOT / "toolkit/study/studies/lenet-deployment.toml").read_text()
    for told, here in SHORTER.items():
        assert told in study
        study = study.replace(told, here)
    (place / "lenet-deployment.toml").write_text(study)
    for block in blocks_of((ROOT / "README.md").read_text()):
        run_block(block, place, "README.md")
    return place


def test_the_readme_s_commands_run_in_order(readme: Path) -> None:
    for made in ("lenet", "lenet-onnx", "lenet-int8", "lenet-fast/bundle", "report.html"):
        assert (readme / made).exists()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_s_commands_run_in_order(page: str, readme: Path, tmp_path: Path) -> None:
    text = (ROOT / page).read_text()
    blocks = blocks_of(text)
    codes = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    if not blocks and not codes:
        return
    place = tmp_path / "place"
    shutil.copytree(readme, place)
    shutil.copyfile(place / "lenet-int8" / "model.onnx", place / "lenet-int8.onnx")
    shutil.copyfile(place / "lenet-onnx" / "model.onnx", place / "model.onnx")
    shutil.copytree(place / "lenet-onnx", place / "base")
    (place / "studies/lenet-deployment-quick").rename(place / "studies/lenet")
    (place / ".venv-mxnet").symlink_to(Path(mxnet_python()).parents[1])
    for block in blocks:
        run_block(block, place, page)
    code = "\n".join([PRELUDES.get(page, ""), *codes])
    (place / "page.py").write_text(code)
    done = subprocess.run(
        [TOOLKIT.with_name("python"), "page.py"], cwd=place, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_study_of_the_page_can_be_run(tmp_path: Path) -> None:
    (study,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/studies.md").read_text(), re.DOTALL)
    (tmp_path / "study.toml").write_text(study)
    run_block(["toolkit study run study.toml --dry-run"], tmp_path, "docs/studies.md")


def test_the_study_of_the_readme_can_be_planned_by_its_name(tmp_path: Path) -> None:
    """The README's test runs a shorter copy of it, by its path."""
    (line,) = (
        line
        for block in blocks_of((ROOT / "README.md").read_text())
        for line in block
        if line.startswith("toolkit study run ")
    )
    run_block([f"{line} --dry-run"], tmp_path, "no page")


def test_what_is_run_elsewhere_is_told_and_is_there() -> None:
    pages = ((ROOT / page).read_text() for page in ("README.md", *PAGES))
    told = {line for page in pages for block in blocks_of(page) for line in block}
    assert told >= ELSEWHERE.keys()
    for place in ELSEWHERE.values():
        assert (ROOT / place).exists()


def test_tests_run_with_the_options_of_the_pages() -> None:
    for page, files in TESTED.items():
        commands = [line for block in blocks_of((ROOT / page).read_text()) for line in block]
        for beginning, file in files.items():
            known = strings_of(ROOT / "tests/cli" / file)
            lines = [line for line in commands if line.startswith(beginning)]
            assert lines, (page, beginning)
            for line in lines:
                words = line.partition(" > ")[0].split()
                options = {word for word in words if word.startswith("--")}
                assert {*beginning.split()[1:2], *options} <= known, (line, file)


def strings_of(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
