"""Default recipe and specification of a user model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.base import signature_of
from toolkit.core.specs import ModelSpec, Task

OWN = "own"
OWN_RECIPE: Mapping[str, Any] = {"batch": 64, "optimizer": "adam", "learning_rate": 0.001}


def own_spec(name: str, framework: str, task: Task, data: str) -> ModelSpec:
    """Return the specification of the model for `task` that a user's callable has to make."""
    return ModelSpec(
        name=name,
        family=OWN,
        framework=framework,
        signature=signature_of(task),
        task=task,
        data=data,
    )
