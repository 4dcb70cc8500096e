"""What a shell is told when it asks how a line goes on."""

from __future__ import annotations

import pytest

from tests.conftest import Run


def completed(run: Run, line: str) -> list[str]:
    env = {
        "_TOOLKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    return run(env=env).stdout.split()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("toolkit ben", ["bench", "bench-training"]),
        ("toolkit export x --to onn", ["onnx"]),
        ("toolkit bench x --runtime torch,openv", ["torch,openvino"]),
        ("toolkit bench x --runtime openvino,openv", []),
        ("toolkit train resnet3", ["resnet32"]),
        ("toolkit train lenet --data dig", ["digits"]),
        ("toolkit study run mlp", ["mlp-california"]),
        ("toolkit bench x --warm", ["--warmup"]),
    ],
)
def test_names_are_completed(toolkit_cli: Run, line: str, told: list[str]) -> None:
    assert completed(toolkit_cli, line) == told
