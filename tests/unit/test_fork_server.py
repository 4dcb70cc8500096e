"""Processes from the fork server of the tests: which are forked, and what differs in them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

REPORT = """
import json, os, sys
modules = set(sys.modules)
import openvino
print(json.dumps({
    "forked": "torch" in modules,
    "arguments": sys.argv,
    "path": sys.path[0],
    "parent": os.getppid(),
    "cores": sorted(os.sched_getaffinity(0)),
    "directory": os.getcwd(),
    "openvino": openvino.__file__,
    "product": "toolkit.core.errors" in modules,
}))
"""

Start = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Runs a script."""

    def run(code: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        (tmp_path / "script.py").write_text(code)
        return subprocess.run(
            [sys.executable, tmp_path / "script.py", "one", "two"],
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_script_is_forked_as_a_child_of_its_caller(start: Start, tmp_path: Path) -> None:
    found = report(start(REPORT))
    assert found["forked"]
    assert found["arguments"] == [str(tmp_path / "script.py"), "one", "two"]
    assert found["path"] == str(tmp_path)
    assert found["directory"] == str(tmp_path)
    assert found["parent"] == os.getpid()
    assert found["cores"] == sorted(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("name", "forked"),
    [
        ("XDG_CACHE_HOME", True),
        ("RANK", True),
        ("LD_LIBRARY_PATH", False),
        ("CUDA_VISIBLE_DEVICES", False),
    ],
)
def test_an_environment_that_imports_may_read_gets_an_interpreter(
    start: Start, name: str, forked: bool
) -> None:
    assert report(start(REPORT, {name: "-1"}))["forked"] is forked


@pytest.fixture(scope="module")
def imported() -> Iterator[None]:
    """As if an import had set a variable in this process."""
    os.environ["SET_BY_AN_IMPORT"] = "1"
    yield
    del os.environ["SET_BY_AN_IMPORT"]


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("when", ["in this test", "before it"])
def test_what_an_earlier_test_imported_does_not_matter(start: Start, when: str) -> None:
    assert report(start(REPORT))["forked"] is (when == "before it")


def test_a_variable_that_is_gone_gets_an_interpreter(start: Start, tmp_path: Path) -> None:
    assert report(start(REPORT))["forked"]
    (tmp_path / "script.py").write_text(REPORT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], env={}, capture_output=True, text=True, check=True
    )
    assert not report(done)["forked"]


def test_what_pythonpath_replaces_is_imported_anew(start: Start, tmp_path: Path) -> None:
    package = tmp_path / "site" / "openvino"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    found = report(start(REPORT, {"PYTHONPATH": str(package.parent)}))
    assert found["forked"]
    assert found["openvino"] == str(package / "__init__.py")
    assert not found["product"]


@pytest.mark.parametrize("name", ["sitecustomize.py", "module.so"])
def test_a_pythonpath_of_more_than_modules_gets_an_interpreter(
    start: Start, tmp_path: Path, name: str
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / name).touch()
    assert not report(start(REPORT, {"PYTHONPATH": str(tmp_path / "site")}))["forked"]


@pytest.mark.real_start
def test_a_test_can_ask_for_interpreters(start: Start) -> None:
    assert not report(start(REPORT))["forked"]


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit('told')", 1, "told"),
        ("raise ValueError('wrong')", 1, "ValueError: wrong"),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import os; os.abort()", -signal.SIGABRT, ""),
    ],
)
def test_it_ends_as_an_interpreter_does(start: Start, code: str, status: int, says: str) -> None:
    done = start(code)
    assert done.returncode == status
    assert says in done.stderr


def test_what_runs_at_exit_runs(start: Start) -> None:
    code = "import atexit, sys; atexit.register(print, 'last'); print('first', end=' ')"
    assert start(code).stdout == "first last\n"


def test_each_draws_other_random_numbers(start: Start) -> None:
    code = "import numpy; print(numpy.random.random())"
    assert start(code).stdout != start(code).stdout


def test_a_child_of_the_command_line_is_forked_too(start: Start) -> None:
    code = """
    import subprocess, sys
    from pathlib import Path
    inner = Path("inner.py")
    inner.write_text("import sys; print('torch' in sys.modules)")
    print(subprocess.run([sys.executable, inner], capture_output=True, text=True).stdout)
    """
    assert start(textwrap.dedent(code)).stdout.strip() == "True"
