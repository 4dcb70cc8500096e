"""What models there are."""

from __future__ import annotations

from dataclasses import dataclass

from models import FAMILIES
from toolkit.core.documents import Json
from toolkit.core.specs import Signature


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A built-in model, its size counted on the module itself."""

    name: str
    family: str
    frameworks: tuple[str, ...]
    parameters: int
    state_dict_bytes: int
    signature: Signature

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "family": self.family,
            "frameworks": list(self.frameworks),
            "parameters": self.parameters,
            "state_dict_bytes": self.state_dict_bytes,
            "signature": self.signature.to_json(),
        }


def models() -> tuple[ModelInfo, ...]:
    """Every built-in model. Raises UnavailableError when its framework is not installed."""
    return tuple(_describe(name) for name in FAMILIES.names())


def _describe(name: str) -> ModelInfo:
    family = FAMILIES.create(name)
    frameworks = tuple(family.builders.names())
    spec = family.spec(frameworks[0])
    size = family.builders.create(frameworks[0]).size(spec)
    return ModelInfo(
        name=spec.name,
        family=spec.family,
        frameworks=frameworks,
        parameters=size.parameters,
        state_dict_bytes=size.state_dict_bytes,
        signature=spec.signature,
    )
