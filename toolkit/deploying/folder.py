"""Deployment to a folder that runs without the toolkit: a bundle with samples to check it."""

from __future__ import annotations

from pathlib import Path

from toolkit.core.errors import UsageError
from toolkit.core.files import copy_directory, write_atomically, write_npz
from toolkit.deploying.deploy import Deployed
from toolkit.sources.inputs import InputRequest, input_source
from toolkit.sources.load import load

CHECK = "check.py"
INPUTS, EXPECTED = "check-inputs.npz", "check-outputs.npz"

PROGRAM = '''"""Runs run.py on check-inputs.npz, and holds its outputs against check-outputs.npz,
which the toolkit got: python check.py. Exits with 1 where they differ."""
import subprocess, sys, tempfile
from pathlib import Path
import numpy as np

here = Path(__file__).resolve().parent
with tempfile.TemporaryDirectory() as scratch:
    found = Path(scratch) / "outputs.npz"
    subprocess.run([sys.executable, here / "run.py", here / "check-inputs.npz", found], check=True)
    got, expected = dict(np.load(found)), dict(np.load(here / "check-outputs.npz"))
if got.keys() != expected.keys():
    sys.exit(f"outputs are {sorted(got)}, expected {sorted(expected)}")
for name, right in expected.items():
    apart = float(np.abs(got[name].astype(float) - right.astype(float)).max())
    print(f"{name}: largest difference {apart:.3g}, of values up to {np.abs(right).max():.3g}")
    if got[name].shape != right.shape or not apart <= {tolerance} * np.abs(right).max():
        sys.exit(f"{name} is not what it was")
print("ok")
'''
TOLERANCE = 1e-4  # relative to the largest value: another CPU may sum in another order


def write_folder(directory: Path, deployed: Deployed) -> list[str]:
    """Write the bundle with its check to `directory`, and return how to run the check.

    Raise UsageError if the model is an artifact without a bundle, which has no program to run it.
    """
    if deployed.bundle is None:
        raise UsageError(
            f"{deployed.artifact.path} is an artifact by itself, with no program to run it.",
            hint="Deploy a bundle of `toolkit optimize`, or deploy to triton.",
        )
    copy_directory(deployed.bundle, directory)
    feeds = input_source(deployed.artifact, InputRequest()).sets(deployed.batch)[0]
    with load(directory) as session:
        outputs = session.run(feeds)
    write_npz(directory / INPUTS, feeds)
    write_npz(directory / EXPECTED, outputs)
    write_atomically(directory / CHECK, PROGRAM.replace("{tolerance}", str(TOLERANCE)).encode())
    return [f"Check it where it is to run: pip install -r requirements.txt; python {CHECK}"]
