"""How far from the reference is still the same model: one table, by the precision that ran."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Bounds on the difference to the reference, and why they are where they are.

    An output passes when |got - reference| <= absolute + relative * max |reference| everywhere,
    the maximum over the whole output: cancellation in a sum leaves errors in proportion to its
    terms, not to its value (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
    `agreement` is the least share of rows with the same top-1 class.
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
    """Raises UsageError for a precision without a row in the table."""
    if precision not in TOLERANCES:
        raise UsageError(
            f"There is no tolerance for precision {precision!r}; known: {sorted(TOLERANCES)}.",
            hint="Compare an artifact of a known precision.",
        )
    return TOLERANCES[precision]


# The largest relative error of one rounding: IEEE 754, round to nearest.
# Of TF32, that of a factor.
ROUNDOFF = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "tf32": 2.0**-11,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}

# How many times the rounding error of the reference may be, of which u / u32 is taken in a coarser
# precision. Kernels of one arithmetic differ in the order of their sums, and a Winograd convolution
# is some ten times less exact than a direct one (Lavin and Gray, 2016). The coarser ones have one
# rounding a value where the reference has one an addition, so that twice is enough.
MARGINS = {"float64": 16.0, "float32": 16.0, "tf32": 2.0, "float16": 2.0, "bfloat16": 2.0}

# Of one loss to another at the same step, within the first 20 steps and in the mean of the first
# epoch: rounding, which is 1e-7 at the first step, stays below 1e-3 there for the families here; a
# wrong optimizer, learning rate or order of rows shows above 1 %.
LOSSES_WITHIN = 0.01
