"""Fresh weights that do not depend on the framework: the same seed gives the same bits in all.

Each tensor is drawn by its own generator, seeded by the run's seed and the tensor's name, so that
neither the order of construction nor what else a model has plays a part.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping

import numpy as np

Shape = tuple[int, ...]


def fresh_weights(
    shapes: Mapping[str, Shape], seed: int, scheme: str = "default"
) -> dict[str, np.ndarray]:
    """Weights for tensors with the names and shapes of torch's state_dict, float32.

    Kernels (two axes or more) by `scheme`; the bias beside a kernel uniform in
    ±1/sqrt(fan_in); a weight with one axis, of a normalisation, ones; running_var ones,
    all else zeros (num_batches_tracked int64).
    Raises KeyError for a scheme that is none.
    """
    kernel = SCHEMES[scheme]
    found: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        owner, _, kind = name.rpartition(".")
        beside = shapes.get(f"{owner}.weight", ())
        if kind == "num_batches_tracked":
            found[name] = np.zeros(shape, np.int64)
        elif kind == "weight" and len(shape) > 1:
            found[name] = kernel(rng, shape).astype(np.float32)
        elif kind == "bias" and len(beside) > 1:
            bound = 1 / math.sqrt(_fan_in(beside))
            found[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
        else:
            ones = kind in ("weight", "running_var")
            found[name] = np.full(shape, float(ones), np.float32)
    return found


def _fan_in(shape: Shape) -> int:
    """Values that one output sums over; kernels are [out, in, ...]."""
    return math.prod(shape[1:])


def _default(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """What torch's Linear and Conv2d use: He et al. (2015), uniform, with a = sqrt(5)."""
    bound = 1 / math.sqrt(_fan_in(shape))
    return rng.uniform(-bound, bound, shape)


def _he_normal(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """He et al., Delving Deep into Rectifiers (2015): normal with variance 2 / fan_in."""
    return rng.normal(0.0, math.sqrt(2 / _fan_in(shape)), shape)


SCHEMES: Mapping[str, Callable[[np.random.Generator, Shape], np.ndarray]] = {
    "default": _default,
    "he-normal": _he_normal,
}
