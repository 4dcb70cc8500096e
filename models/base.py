"""What a model family is, apart from any framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from toolkit.core.registry import Registry
from toolkit.core.specs import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Size:
    """Trainable values, and the bytes of all parameters and buffers."""

    parameters: int
    state_dict_bytes: int


class Builder(ABC):
    """Makes a family's module in one framework."""

    @abstractmethod
    def build(self, spec: ModelSpec) -> Any:
        """The module with fresh weights."""

    @abstractmethod
    def size(self, spec: ModelSpec) -> Size:
        """How large the module is, counted on it."""


class Family(ABC):
    """A model architecture: what it takes and gives, and who builds it."""

    name: ClassVar[str]
    builders: ClassVar[Registry[Builder]]
    recipe: ClassVar[Mapping[str, float]]

    @abstractmethod
    def spec(self, framework: str, *, data: str | None = None, classes: int = 10) -> ModelSpec:
        """The family's model for so many classes."""
