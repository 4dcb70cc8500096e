"""The documentation says what the program does."""

from __future__ import annotations

import re
import shlex
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer._click.exceptions import ClickException
from typer.main import get_command

from tests.conftest import TOOLKIT
from toolkit.cli.main import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
GLOSSARY = ROOT / "docs" / "glossary.md"
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


def avoided_words() -> list[str]:
    """Return the words in the last column of the table in docs/glossary.md."""
    rows = re.findall(r"^\|[^|]*\|[^|]*\|([^|]*)\|$", GLOSSARY.read_text(), re.MULTILINE)[2:]
    return [word.strip() for cell in rows for word in cell.split(",") if word.strip()]


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line number and text of every string and comment of a module, or line of a page."""
    if path.suffix == ".md":
        yield from enumerate(path.read_text().splitlines(), 1)
        return
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in (tokenize.STRING, tokenize.COMMENT):
                yield token.start[0], token.string


@pytest.mark.parametrize(
    "folder", ["calibration", "docs", "exporters", "models", "runtimes", "tests", "toolkit"]
)
def test_the_words_that_the_glossary_avoids_are_not_used(folder: str) -> None:
    words = avoided_words()
    assert "yardstick" in words
    avoided = re.compile(rf"\b(?:{'|'.join(words)})s?\b", re.IGNORECASE)
    paths = [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.md")]
    paths += ROOT.glob("*.md") if folder == "docs" else []
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in paths
        if path not in (GLOSSARY, Path(__file__))
        for number, text in prose_of(path)
        for match in avoided.finditer(text)
    ]
    assert found == []
