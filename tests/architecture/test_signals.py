"""Signal handlers are installed in two files, which leave ignored signals ignored."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("toolkit", "models", "exporters", "runtimes", "calibration")
INSTALL = {"toolkit/cli/main.py", "toolkit/core/interrupts.py"}
CALLS = {"signal.signal", "signal.sigaction", "signal.siginterrupt", "signal.set_wakeup_fd"}


def test_no_other_file_installs_a_handler() -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS
    }
    assert found == INSTALL
