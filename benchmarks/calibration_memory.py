"""What calibrating with many rows costs beside few: the memory of the whole command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
from figure import Figure, Place

FEW, MANY = 64, 4096
# The command in a process of its own, which then says what was the largest resident size: its own,
# and that of the largest of its workers.
MEASURED = """
import resource, sys
from toolkit.cli.main import main
from toolkit.core.memory import peak_rss_bytes
sys.argv = sys.argv[1:]
try:
    main()
finally:
    print(peak_rss_bytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
          file=sys.stderr)
"""


def figures(place: Place) -> Iterator[Figure]:
    rows = place.directory / "calibration.npz"
    rng = np.random.default_rng(0)
    np.savez(rows, input=rng.standard_normal((MANY, 3, 32, 32)).astype(np.float32))
    peaks = {}
    for samples in (FEW, MANY):
        command = [
            "toolkit", "calibrate", place.artifact, "--data", rows, "--samples", samples,
            "--method", "entropy", "--out", place.directory / f"int8-{samples}", "--json",
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *map(str, command)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)["samples"] == samples
        own, worker = map(int, done.stderr.splitlines()[-1].split())
        peaks[samples] = {"command": own / 1e6, "its largest worker": worker / 1e6}
    for what in peaks[FEW]:
        few, many = peaks[FEW][what], peaks[MANY][what]
        yield Figure(
            what=f"peak of the {what}, toolkit calibrate on {MANY:,} rows beside {FEW}".replace(
                "the its", "its"
            ),
            found=f"{many:.0f} MB beside {few:.0f} MB",
            promised="within 10 %",
            kept=abs(many / few - 1) <= 0.1,
        )
