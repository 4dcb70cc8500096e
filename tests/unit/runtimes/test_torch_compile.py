"""What torch.compile says that it ran: library calls, and the kernels that it generated."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runtimes.torch.compile import TorchCompile
from toolkit.core.artifact import Checkpoint
from toolkit.core.session import SessionOptions


def test_generated_kernels_are_named_beside_library_calls(checkpoint_dir: Path) -> None:
    source = Checkpoint.load(checkpoint_dir).artifact()
    with TorchCompile().open(source, SessionOptions(threads=1)) as session:
        session.run({"input": np.zeros((2, 3, 32, 32), np.float32)})
        found = session.provenance()
    dtypes = {node["operator"]: node["dtype"] for node in found.details["nodes"]}
    generated = {name for name in dtypes if name.startswith("cpp_fused_")}
    assert any("max_pool" in name for name in generated)  # no library call computes it
    assert any("conv" in name or "linear" in name or "mm" in name for name in dtypes)
    assert set(dtypes.values()) == {"float32"}
    assert found.precision == "float32"
