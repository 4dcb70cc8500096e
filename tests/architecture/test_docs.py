"""The documentation says what the program does."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from tests.conftest import TOOLKIT
from toolkit.cli.main import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


def shell_lines(text: str) -> list[str]:
    """The commands of the fenced shell blocks that begin with `toolkit`."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("toolkit ")]


@pytest.mark.alone
def test_the_readme_s_commands_run_in_order(tmp_path: Path) -> None:
    lines = shell_lines(README)
    assert len(lines) >= 6
    for line in lines:
        done = subprocess.run(
            [TOOLKIT, *shlex.split(line)[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)


def test_the_readme_s_python_runs(tmp_path: Path, artifact_dir: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    assert "toolkit.load" in code
    (tmp_path / "lenet-onnx").symlink_to(artifact_dir)
    (tmp_path / "lenet").symlink_to(artifact_dir.parent / "lenet")
    script = tmp_path / "script.py"
    script.write_text(code)
    python = TOOLKIT.with_name("python")
    done = subprocess.run(
        [python, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_documented(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert f"toolkit {name}" in README
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name} {parameter.name} has no help"


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
    ],
)
def test_links_and_paths_in_the_pages_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target
