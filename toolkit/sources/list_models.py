"""List of the built-in models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models import FAMILIES
from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.options import Option
from toolkit.core.specs import Signature, Task


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A built-in model: its default task, and its size for that task.

    The size is counted on the module built in the first framework, which is torch for the models
    that come with the toolkit; it is the same in the others.
    """

    name: str
    family: str
    frameworks: tuple[str, ...]
    options: Mapping[str, Option]
    parameters: int
    state_dict_bytes: int
    task: Task
    signature: Signature

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "family": self.family,
            "frameworks": list(self.frameworks),
            "options": {
                name: {
                    "default": option.default,
                    "expected": option.describe(),
                    "help": option.help,
                }
                for name, option in self.options.items()
            },
            "parameters": self.parameters,
            "state_dict_bytes": self.state_dict_bytes,
            "task": encode(self.task),
            "signature": encode(self.signature),
        }


def models() -> tuple[ModelInfo, ...]:
    """Return all built-in models.

    Raises UnavailableError if the first framework of a model is not installed.
    """
    return tuple(_describe(name) for name in FAMILIES.names())


def _describe(name: str) -> ModelInfo:
    family = FAMILIES.create(name)
    frameworks = tuple(family.builders.names())
    spec = family.spec(frameworks[0])
    assert spec.task is not None
    size = family.builders.create(frameworks[0]).size(spec)
    return ModelInfo(
        name=spec.name,
        family=spec.family,
        frameworks=frameworks,
        options=family.options,
        parameters=size.parameters,
        state_dict_bytes=size.state_dict_bytes,
        task=spec.task,
        signature=spec.signature,
    )
