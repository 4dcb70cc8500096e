"""Control of TF32: float32 products with a 10-bit mantissa, on GPUs from Ampere on.

TF32 is off by default, since it is less precise than the float32 of the model.
"""

from __future__ import annotations

import os

from toolkit.core import nvidia

OPTION = "tf32"
FIRST_CAPABILITY = 80
OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""Environment variable of NVIDIA's libraries: 0 and 1 override what a program sets."""


def precision_with(tf32: bool, precision: str) -> str:
    """Return "tf32" in place of "float32" if TF32 is allowed and the GPU has it, else `precision`.

    `tf32` is whether the session allows TF32; NVIDIA_TF32_OVERRIDE takes precedence.
    """
    gpus = nvidia.driver().gpus
    has_it = not gpus or gpus[0].capability >= FIRST_CAPABILITY
    allowed = {"0": False, "1": True}.get(os.environ.get(OVERRIDE, ""), tf32)
    return "tf32" if allowed and has_it and precision == "float32" else precision


def forbid_in_libraries(*, unless: bool) -> None:
    """Forbid TF32 via NVIDIA_TF32_OVERRIDE, for libraries without an option for it.

    With `unless`, remove the variable instead. Call it before the first engine is built.
    """
    if unless:
        os.environ.pop(OVERRIDE, None)
    else:
        os.environ[OVERRIDE] = "0"
