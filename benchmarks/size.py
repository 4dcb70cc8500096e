"""What 20,000 samples a row cost the parent process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from figure import Figure, Place

from toolkit.results import store

SAMPLES = 20_000
# The command in a process of its own, which then says what was its largest resident size.
MEASURED = """
import sys
from toolkit.cli.main import main
from toolkit.core.memory import peak_rss_bytes
sys.argv = sys.argv[1:]
try:
    main()
finally:
    print(peak_rss_bytes(), file=sys.stderr)
"""


def figures(place: Place) -> Iterator[Figure]:
    command = [
        "toolkit", "bench", place.artifact, "--runtime", "torch,onnxruntime,openvino",
        "--runs", SAMPLES, "--out", place.results, "--json",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, command)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    peak_mb = int(done.stderr.split()[-1]) / 1e6
    found = json.loads(done.stdout)
    counts = {scope["samples"] for row in found["rows"] for scope in row["scopes"].values()} - {1}
    assert counts == {SAMPLES}, counts
    yield Figure(
        what=f"peak of the parent, 3 rows of 2 scopes with {SAMPLES:,} samples each",
        found=f"{peak_mb:.0f} MB",
        promised="under 200 MB",
        kept=peak_mb < 200,
    )
    result = store.load(Path(found["result"]))
    elsewhere = place.directory / "again"
    elsewhere.mkdir()
    began = time.perf_counter()
    path = store.save(elsewhere, result)
    seconds = time.perf_counter() - began
    yield Figure(
        what=f"writing its result ({path.stat().st_size / 1e6:.1f} MB)",
        found=f"{seconds:.2f} s",
        promised="under 1 s",
        kept=seconds < 1,
    )
    began = time.perf_counter()
    shown = subprocess.run(
        [Path(sys.executable).with_name("toolkit"), "results", "show", found["result"],
         "--percentiles", "50,99"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    columns = [name for name in ("p50", "p99") if name in shown.stdout]
    yield Figure(
        what="toolkit results show --percentiles 50,99 on it, without measuring",
        found=f"{' and '.join(columns)} in {seconds:.1f} s",
        promised="p50 and p99",
        kept=len(columns) == 2 and len(result.rows[0].measurements[0].warmup) > 0,
    )
