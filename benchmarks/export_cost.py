"""What an export with proof costs, beside torch's own exporter on the same model."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from figure import Figure, Place

MODELS = Path(__file__).with_name("export_cost_models.py")
NAMES = ("lenet", "resnet18", "unet", "lstm", "vit_small", "bert_base")
TIME_RATIO = 2.0
MEMORY_RATIO = 1.5  # and one copy of the weights
REPEATS = 3
SAMPLE_S = 0.1
BARE = f"""
import importlib.util, sys, torch
spec = importlib.util.spec_from_file_location("models", {str(MODELS)!r})
models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(models)
module, inputs = getattr(models, sys.argv[1])()
axes = {{name: {{0: torch.export.Dim.DYNAMIC}} for name in inputs}}
torch.onnx.export(
    module, (), sys.argv[2], kwargs=inputs, dynamo=True, dynamic_shapes=axes, verbose=False
)
print(sum(p.numel() * p.element_size() for p in module.parameters()))
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a command with all its processes: wall time, and the largest sum of their memory at one
    time, in which pages that several share count once."""

    seconds: float
    bytes: int
    output: str


def figures(place: Place) -> Iterator[Figure]:
    toolkit = str(Path(sys.executable).with_name("toolkit"))
    for name in NAMES:
        pairs = []
        for turn in range(REPEATS):
            here = place.directory / f"{name}-{turn}"
            here.mkdir()
            bare = cost([sys.executable, "-c", BARE, name, str(here / "bare.onnx")])
            ours = cost([toolkit, "export", f"{MODELS}:{name}", "--to", "onnx",
                         "--out", str(here / "ours")])  # fmt: skip
            pairs.append((bare, ours))
        weights = int(pairs[0][0].output.split()[-1])
        seconds = sorted(ours.seconds / bare.seconds for bare, ours in pairs)[len(pairs) // 2]
        bare_bytes = min(bare.bytes for bare, _ in pairs)
        allowed = MEMORY_RATIO * bare_bytes + weights
        our_bytes = min(ours.bytes for _, ours in pairs)
        told = ", ".join(f"{ours.seconds:.1f} to {bare.seconds:.1f} s" for bare, ours in pairs)
        yield Figure(
            what=f"export of {name} with proof, time to the bare exporter's ({told})",
            found=f"{seconds:.2f} times",
            promised=f"at most {TIME_RATIO:g} times",
            kept=seconds <= TIME_RATIO,
        )
        yield Figure(
            what=f"export of {name} with proof, memory of all processes ({weights / 1e6:.0f} MB of "
            f"weights, bare {bare_bytes / 1e6:.0f} MB)",
            found=f"{our_bytes / 1e6:.0f} MB",
            promised=f"at most {allowed / 1e6:.0f} MB",
            kept=our_bytes <= allowed,
        )


def cost(command: Sequence[str]) -> Cost:
    """Run a command to its end. Raises CalledProcessError if it fails."""
    start = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as ran:
        largest = 0
        watched = psutil.Process(ran.pid)
        while ran.poll() is None:
            largest = max(largest, _memory(watched))
            time.sleep(SAMPLE_S)
        seconds = time.monotonic() - start
        output, errors = ran.communicate()
    if ran.returncode:
        raise subprocess.CalledProcessError(ran.returncode, command, output, errors)
    return Cost(seconds=seconds, bytes=largest, output=output)


def _memory(root: psutil.Process) -> int:
    total = 0
    try:
        members = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in members:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total
