"""Initial weights that are bit-identical in all frameworks for the same seed.

Each tensor has its own random generator, seeded with the run's seed and the tensor's name. Its
values thus depend neither on the order of construction nor on the other tensors of the model.
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
    """Return initial float32 weights for tensors with the names and shapes of a torch state_dict.

    Kernels (weights with two or more axes) follow `scheme`. The bias of a layer with a kernel is
    uniform in ±1/sqrt(fan_in). Weights with one axis, which belong to normalisations, and
    running_var are ones; all else is zeros, of which num_batches_tracked is int64. Raises KeyError
    for an unknown scheme.
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
    """Return the number of inputs that one output sums over; kernels are [out, in, ...]."""
    return math.prod(shape[1:])


def _default(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw as torch's Linear and Conv2d do: He et al. (2015), uniform, with a = sqrt(5)."""
    bound = 1 / math.sqrt(_fan_in(shape))
    return rng.uniform(-bound, bound, shape)


def _he_normal(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw from a normal distribution with variance 2 / fan_in.

    He et al., Delving Deep into Rectifiers (2015).
    """
    return rng.normal(0.0, math.sqrt(2 / _fan_in(shape)), shape)


SCHEMES: Mapping[str, Callable[[np.random.Generator, Shape], np.ndarray]] = {
    "default": _default,
    "he-normal": _he_normal,
}
