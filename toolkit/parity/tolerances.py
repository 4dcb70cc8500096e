"""Table of tolerances for the difference from the reference, by the precision that ran."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Bounds on the difference from the reference, and the reason for them.

    An output passes if |got - reference| <= absolute + relative * max |reference| for every
    element. The maximum is over the whole output: cancellation in a sum leaves errors in proportion
    to its terms, not to its value (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
    `agreement` is the least fraction of samples with the same top-1 class.
    """

    absolute: float
    relative: float
    agreement: float
    why: str


TOLERANCES = {
    "float32": Tolerance(
        absolute=1e-6,
        relative=1e-5,
        agreement=0.999,
        why="Kernels of the same arithmetic differ in the order of their sums: a few units in the "
        "seventh digit after several layers. A wrong constant, padding or epsilon shows above it.",
    ),
    "float64": Tolerance(
        absolute=1e-12,
        relative=1e-11,
        agreement=0.999,
        why="As for float32, with a rounding that is nine digits finer; the margin is wider, since "
        "some kernels compute exponentials to fewer digits.",
    ),
    "tf32": Tolerance(
        absolute=1e-3,
        relative=1e-2,
        agreement=0.99,
        why="Ten bits of fraction in each factor of a product, as in float16; sums are float32.",
    ),
    "float16": Tolerance(
        absolute=1e-3,
        relative=1e-2,
        agreement=0.99,
        why="Ten bits of fraction: a rounding of 5e-4 a layer, of which some ten come together.",
    ),
    "bfloat16": Tolerance(
        absolute=1e-2,
        relative=5e-2,
        agreement=0.98,
        why="Seven bits of fraction: a rounding of 4e-3 a layer, of which some ten come together.",
    ),
    "int8": Tolerance(
        absolute=1e-2,
        relative=5e-2,
        agreement=0.98,
        why="A step is 1/255 of a tensor's range: 4e-3 a layer, of which some ten come together.",
    ),
    "mixed": Tolerance(
        absolute=1e-3,
        relative=1e-2,
        agreement=0.99,
        why="The coarsest part decides, and that is mostly float16.",
    ),
    "none": Tolerance(
        absolute=0.0,
        relative=0.0,
        agreement=1.0,
        why="Without floating-point arithmetic there is nothing to round.",
    ),
}


def tolerance_for(precision: str) -> Tolerance:
    """Return the tolerance of a precision. Raises UsageError if the table has none."""
    if precision not in TOLERANCES:
        raise UsageError(
            f"There is no tolerance for precision {precision!r}; known: {sorted(TOLERANCES)}.",
            hint="Compare an artifact of a known precision.",
        )
    return TOLERANCES[precision]


# Largest relative error of one rounding: IEEE 754, round to nearest.
# For TF32 it is that of a factor of a product.
ROUNDOFF = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "tf32": 2.0**-11,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}

# Allowed error as a multiple of the reference's error, which is scaled by u / u32 for a coarser
# precision. Kernels of one precision sum in different orders, and a Winograd convolution is about
# ten times less exact than a direct one (Lavin and Gray, 2016). A coarser precision rounds once per
# value where the reference rounds once per addition, so that a factor of two is enough.
MARGINS = {"float64": 16.0, "float32": 16.0, "tf32": 2.0, "float16": 2.0, "bfloat16": 2.0}

# Largest relative difference between two losses at the same step, within the first 20 steps, and
# between the mean losses of the first epoch. Rounding differences are 1e-7 at the first step and
# stay below 1e-3 there for the families here. A wrong optimizer, learning rate or order of samples
# causes more than 1 %.
LOSSES_WITHIN = 0.01
