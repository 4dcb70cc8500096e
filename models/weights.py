"""Conversion of weights between the names and layouts of torch, Keras and Flax, for any model.

A layer has the name of its torch module, with the dots: `stage1.0.conv1`. Its arrays correspond as
follows:

| `Weights` (torch)     | Keras            | Flax             | layout there         |
| --------------------- | ---------------- | ---------------- | -------------------- |
| weight [O, I, H, W]   | /kernel          | params kernel    | [H, W, I, O]         |
| weight [O, I]         | /kernel          | params kernel    | [I, O]               |
| bias of those         | /bias            | params bias      | unchanged            |
| weight [C] of a norm  | /gamma           | params scale     | unchanged            |
| bias of a norm        | /beta            | params bias      | unchanged            |
| running_mean          | /moving_mean     | batch_stats mean | unchanged            |
| running_var           | /moving_variance | batch_stats var  | unchanged            |
| num_batches_tracked   | none             | none             | converted back to 0  |

num_batches_tracked affects no result, since all norms here have a fixed momentum. The conversions
return new arrays, in C order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from models.base import Weights
from toolkit.core.errors import IntegrityError, PluginError

KERAS = {
    "kernel": "kernel",
    "bias": "bias",
    "scale": "gamma",
    "shift": "beta",
    "mean": "moving_mean",
    "variance": "moving_variance",
}
FLAX = {
    "kernel": "kernel",
    "bias": "bias",
    "scale": "scale",
    "shift": "bias",
    "mean": "mean",
    "variance": "var",
}
CANONICAL = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "shift": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}
COUNT = "num_batches_tracked"
STATISTICS = ("mean", "variance")

FlaxVariables = dict[str, dict[str, dict[str, np.ndarray]]]
"""Collection (params, batch_stats) -> layer -> leaf -> array."""


def to_keras(weights: Weights) -> dict[str, np.ndarray]:
    """Return arrays by Keras path, `layer/kind`. Raises PluginError for an unknown kind."""
    return {
        f"{layer}/{KERAS[role]}": _outward(role, array) for layer, role, array in _roles(weights)
    }


def from_keras(variables: Weights) -> dict[str, np.ndarray]:
    """Return the `Weights` of arrays by the paths of Keras variables.

    A nested layer, as in `outer/inner/kernel`, becomes `outer.inner`. Raises PluginError for an
    unknown kind.
    """
    roles = {kind: role for role, kind in KERAS.items()}
    found: dict[str, np.ndarray] = {}
    for path, array in variables.items():
        layer, _, kind = path.rpartition("/")
        if kind not in roles:
            raise _unknown(path)
        _put(found, layer.replace("/", "."), roles[kind], array)
    return found


def to_flax(weights: Weights) -> FlaxVariables:
    """Return the Flax collections; `batch_stats` only if there are any. Raises as `to_keras`."""
    found: FlaxVariables = {"params": {}}
    for layer, role, array in _roles(weights):
        collection = "batch_stats" if role in STATISTICS else "params"
        leaves = found.setdefault(collection, {}).setdefault(layer, {})
        leaves[FLAX[role]] = _outward(role, array)
    return found


def from_flax(
    variables: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
) -> dict[str, np.ndarray]:
    """Return the `Weights` of Flax collections. Raises PluginError for an unknown kind."""
    roles = {kind: role for role, kind in FLAX.items()}
    found: dict[str, np.ndarray] = {}
    for collection, layers in variables.items():
        for layer, leaves in layers.items():
            for kind, array in leaves.items():
                if kind not in roles:
                    raise _unknown(f"{collection}/{layer}/{kind}")
                _put(found, layer, roles[kind], array)
    return found


def refuse_misfit(own: Weights, given: Weights) -> None:
    """Raise IntegrityError if names, shapes or dtypes of `given` differ from those of `own`."""
    wrong = [f"{name} is missing" for name in own if name not in given]
    wrong += [f"{name} is not the model's" for name in given if name not in own]
    for name in own.keys() & given.keys():
        got, want = ((a.dtype.name, list(a.shape)) for a in (given[name], own[name]))
        if got != want:
            wrong.append(f"{name} is {got[0]}{got[1]}, expected {want[0]}{want[1]}")
    if wrong:
        raise IntegrityError(
            f"The weights do not fit the model: {'; '.join(wrong)}.",
            hint="The checkpoint was made by another version of the model: train it again.",
        )


def _roles(weights: Weights) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield (layer, role, array) for all weights except num_batches_tracked."""
    for name, array in weights.items():
        layer, _, kind = name.rpartition(".")
        if kind == COUNT:
            continue
        beside = weights.get(f"{layer}.weight", array)
        of_norm = (array if kind == "weight" else beside).ndim == 1
        if kind == "weight":
            yield layer, "scale" if of_norm else "kernel", array
        elif kind == "bias":
            yield layer, "shift" if of_norm else "bias", array
        elif kind in ("running_mean", "running_var"):
            yield layer, "mean" if kind == "running_mean" else "variance", array
        else:
            raise _unknown(name)


def _put(found: dict[str, np.ndarray], layer: str, role: str, array: np.ndarray) -> None:
    found[f"{layer}.{CANONICAL[role]}"] = _inward(role, array)
    if role == "mean":
        found[f"{layer}.{COUNT}"] = np.zeros((), np.int64)


def _outward(role: str, array: np.ndarray) -> np.ndarray:
    """Return a copy, with a kernel [O, I, ...] transposed to [..., I, O]."""
    if role == "kernel":
        array = array.transpose(*range(2, array.ndim), 1, 0)
    return np.array(array, order="C")


def _inward(role: str, array: np.ndarray) -> np.ndarray:
    """Return a copy, with a kernel [..., I, O] transposed to [O, I, ...]."""
    if role == "kernel":
        array = array.transpose(array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))
    return np.array(array, order="C")


def _unknown(name: str) -> PluginError:
    return PluginError(
        f"No rule says what {name!r} is called in another framework.",
        hint="Give the layer weight, bias and running statistics alone: see models/weights.py.",
    )
