"""Quantisation presets: how each runtime needs an INT8 graph to be quantised. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.core.artifact import Format
from toolkit.core.errors import UsageError, unknown_name


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings for quantising a graph.

    Weights are symmetric int8. Activations are symmetric int8 if `symmetric`, else uint8 with a
    zero point. `reduced` limits weights to seven bits, `biases` quantises biases to int32, and
    `weights_in_float` keeps weights in floating point, followed by QuantizeLinear and
    DequantizeLinear.
    """

    symmetric: bool
    per_channel: bool = True
    reduced: bool = False
    biases: bool = True
    weights_in_float: bool = False


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Recipe for a runtime, with the reason for it.

    The source model has the format `takes`. With `needs_vnni`, 8-bit products saturate on a CPU
    without VNNI unless weights are limited to seven bits. With `only_symmetric`, the runtime takes
    no zero point other than 0.
    """

    recipe: Recipe
    why: str
    takes: Format = Format.ONNX
    needs_vnni: bool = False
    only_symmetric: bool = False


PRESETS: Mapping[str, Preset] = {
    "onnxruntime": Preset(
        recipe=Recipe(symmetric=False),
        why="Its CPU kernels multiply uint8 with int8 and add int32 biases; without VNNI the sums "
        "of two products saturate in 16 bits.",
        needs_vnni=True,
    ),
    "openvino": Preset(
        recipe=Recipe(symmetric=False, biases=False),
        why="Its CPU plugin folds the zero points of uint8 activations into the products, and adds "
        "biases in floating point; without VNNI its sums of two products saturate as well.",
        needs_vnni=True,
    ),
    "tensorrt": Preset(
        recipe=Recipe(symmetric=True, biases=False, weights_in_float=True),
        why="It takes no zero point but 0, and folds the pair behind the weights when it builds.",
        only_symmetric=True,
    ),
    "litert": Preset(
        recipe=Recipe(symmetric=False),
        why="TensorFlow's own converter quantises: int8 with a zero point, int32 biases.",
        takes=Format.SAVEDMODEL,
    ),
}


def preset(name: str) -> Preset:
    """Return the preset of that name. Raise UnknownNameError if there is none."""
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]


def recipe_for(
    name: str, *, symmetric: bool | None, per_channel: bool | None, vnni: bool
) -> Recipe:
    """Return the recipe of a preset for a machine with or without VNNI.

    `symmetric` and `per_channel` replace the preset's values unless they are None. Raise
    UnknownNameError if there is no such preset, and UsageError if `symmetric` is False but the
    runtime takes symmetric activations only.
    """
    chosen = preset(name)
    if chosen.only_symmetric and symmetric is False:
        raise UsageError(
            f"Got --asymmetric with --preset {name}, which takes no zero point but 0.",
            hint="Leave it out, or choose another preset.",
        )
    own = chosen.recipe
    return Recipe(
        symmetric=own.symmetric if symmetric is None else symmetric,
        per_channel=own.per_channel if per_channel is None else per_channel,
        reduced=chosen.needs_vnni and not vnni,
        biases=own.biases,
        weights_in_float=own.weights_in_float,
    )
