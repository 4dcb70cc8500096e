"""A model that is the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.base import INPUT, LAYOUTS, OUTPUTS
from toolkit.core.specs import ModelSpec, Signature, Task, TensorSpec

OWN = "own"
OWN_RECIPE: Mapping[str, Any] = {"batch": 64, "optimizer": "adam", "learning_rate": 0.001}


def own_spec(name: str, framework: str, task: Task, data: str) -> ModelSpec:
    """What a user's callable of this name is asked to make: a model for the data set's task."""
    inputs = TensorSpec(
        name=INPUT,
        dtype="float32",
        shape=("batch", *task.input_shape),
        layout=LAYOUTS.get(len(task.input_shape)),
    )
    outputs = TensorSpec(
        name=OUTPUTS[task.kind], dtype="float32", shape=("batch", task.outputs), layout="NC"
    )
    return ModelSpec(
        name=name,
        family=OWN,
        framework=framework,
        signature=Signature(inputs=(inputs,), outputs=(outputs,)),
        task=task,
        data=data,
    )
