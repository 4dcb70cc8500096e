"""The documentation says what the program does."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer._click.exceptions import ClickException
from typer.main import get_command

from tests.conftest import TOOLKIT
from toolkit.cli.main import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]


def told_lines(text: str) -> list[str]:
    """Every command of a page, those for the reader's own files as well."""
    blocks = re.findall(r"```(?:sh|console|yaml)\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.sub(r"^\s*(- run: |\$ )?", "", line).partition("  #")[0] for line in lines]
    inline = re.findall(r"`(toolkit [a-z][^`\n…]*--[^`\n…]*)`", text)
    return [line for line in (*found, *inline) if line.startswith("toolkit ")]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_pages_can_be_meant(page: str) -> None:
    """Commands and options exist, and what is needed is there, in remarks within a line as well;
    tests/cli/test_pages.py runs those of the blocks."""
    for line in told_lines((ROOT / page).read_text()):
        words = shlex.split(line.partition(" > ")[0].partition("; ")[0])[1:]
        command = get_command(app)
        context = command.make_context("toolkit", [*words], resilient_parsing=True)
        while hasattr(command, "resolve_command") and words and not words[0].startswith("-"):
            name, command, words = command.resolve_command(context, words)
            assert command is not None, (line, name)
        wrong = None
        try:
            command.make_context("toolkit", words)
        except ClickException as error:
            wrong = error
        # A remark may leave out what is needed, and be no more.
        assert type(wrong).__name__ in ("NoneType", "MissingParameter"), (line, str(wrong))


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
        *PAGES,
        "CONTRIBUTING.md",
    ],
)
def test_links_and_paths_in_the_pages_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target
