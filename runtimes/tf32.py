"""TF32: float32 whose products are taken with ten bits of fraction, on GPUs from Ampere on.

It is off unless asked for, since it is coarser than the float32 that a model asks for.
"""

from __future__ import annotations

from toolkit.core import nvidia

OPTION = "tf32"
FIRST_CAPABILITY = 80


def precision_with(tf32: bool, precision: str) -> str:
    """What float32 comes to where TF32 is allowed: "tf32" on a GPU that has it."""
    gpus = nvidia.driver().gpus
    has_it = bool(gpus) and gpus[0].capability >= FIRST_CAPABILITY
    return "tf32" if tf32 and has_it and precision == "float32" else precision
