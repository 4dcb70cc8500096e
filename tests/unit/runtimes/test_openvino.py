"""OpenVINO on the CPU: what the runtime leaves behind in the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os
import signal
import sys
from pathlib import Path

from runtimes.openvino import OpenVino
from toolkit.core.artifact import Artifact
from toolkit.core.session import SessionOptions

artifact = Artifact.load(Path(sys.argv[1]))
first = OpenVino().open(artifact, SessionOptions(threads=1))
second = OpenVino().open(artifact, SessionOptions(threads=1))
for session in (first, second):
    session.close()
del first, second, session
try:
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_is_received_after_overlapping_sessions(artifact_dir: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(artifact_dir)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "interrupted\n", done.stderr
    assert done.returncode == 0
