"""Model families by name, and how to build one."""

from __future__ import annotations

from typing import Any

from models.base import Family
from toolkit.core.registry import Entry, Registry
from toolkit.core.specs import ModelSpec

FAMILIES: Registry[Family] = Registry(
    "model", {"lenet": Entry("models.lenet:LeNet")}, group="toolkit.models"
)


def build(spec: ModelSpec) -> Any:
    """The untrained module of `spec`, in its framework.

    Raises UnknownNameError for a family, or a framework of it, that is not there.
    """
    return FAMILIES.create(spec.family).builders.create(spec.framework).build(spec)
