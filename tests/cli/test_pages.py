"""Every command of the README and the pages runs, as a reader would run them, a page at a time.

The README comes first: what it makes lies beside what the other pages run. Where a command needs a
GPU, that it is refused with a reason is all that can be seen here. Measurements are briefer.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import TOOLKIT, run_toolkit
from tests.mlflow_server import mlflow_server
from tests.mxnet_env import mxnet_python

# The README is one fixture, and longer than a test.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))

RAY = "tests/cli/test_study_ray.py"
ELSEWHERE = {
    "make demo": "tests/cli/test_main_job.py",
    "make mxnet-env": ".ci/run",
    "make gpu-check": "tests/cli/test_gpu_check.py",
    "pip install -c constraints.txt '.[cpu]'": "Makefile",
    "ray start --head": RAY,
    "ray start --address HEAD:6379": RAY,
    "toolkit study run study.toml --executor ray --address HEAD:6379": RAY,
}
"""What another test runs, or CI itself."""

INSTEAD = {
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
    "toolkit bench ": " --max-seconds 2 --processes 1",
    "toolkit bench-training ": " --max-seconds 2",
    "toolkit compare ": " --max-seconds 2",
}

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


def run_block(block: list[str], place: Path, page: str) -> None:
    for command in block:
        if command in ELSEWHERE:
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
def readme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the README's commands were run."""
    place = tmp_path_factory.mktemp("readme")
    (place / "net.py").write_text(NET)
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
    if "mlflow" in text:
        with mlflow_server(tmp_path / "mlflow") as url:
            for block in blocks:
                here = [line.replace("http://localhost:5000", url) for line in block]
                run_block(here, place, page)
    else:
        for block in blocks:
            run_block(block, place, page)
    code = "\n".join([PRELUDES.get(page, ""), *codes])
    done = subprocess.run(
        [TOOLKIT.with_name("python"), "-c", code], cwd=place, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_study_of_the_page_can_be_run(tmp_path: Path) -> None:
    (study,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/studies.md").read_text(), re.DOTALL)
    (tmp_path / "study.toml").write_text(study)
    run_block(["toolkit study run study.toml --dry-run"], tmp_path, "docs/studies.md")


def test_what_is_run_elsewhere_is_told_and_is_there() -> None:
    pages = ((ROOT / page).read_text() for page in ("README.md", *PAGES))
    told = {line for page in pages for block in blocks_of(page) for line in block}
    assert told >= ELSEWHERE.keys()
    for place in ELSEWHERE.values():
        assert (ROOT / place).exists()
