"""TF32: float32 whose products are taken with ten bits of fraction, on GPUs from Ampere on.

It is off unless asked for, since it is coarser than the float32 that a model asks for.
"""

from __future__ import annotations

import os

from toolkit.core import nvidia

OPTION = "tf32"
FIRST_CAPABILITY = 80
OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""NVIDIA's libraries read it: 0 and 1 overrule what a program sets."""


def precision_with(tf32: bool, precision: str) -> str:
    """What float32 comes to where TF32 is allowed: "tf32", but on a GPU that has it not."""
    gpus = nvidia.driver().gpus
    has_it = not gpus or gpus[0].capability >= FIRST_CAPABILITY
    allowed = {"0": False, "1": True}.get(os.environ.get(OVERRIDE, ""), tf32)
    return "tf32" if allowed and has_it and precision == "float32" else precision


def forbid_in_libraries(*, unless: bool) -> None:
    """For what has no option of its own; before its first engine is built."""
    if unless:
        os.environ.pop(OVERRIDE, None)
    else:
        os.environ[OVERRIDE] = "0"
