"""Registry of the model families, and functions that build a model from its spec."""

from __future__ import annotations

from typing import Any

from models.base import Builder, Family
from toolkit.core.registry import Entry, Registry
from toolkit.core.specs import ModelSpec

FAMILIES: Registry[Family] = Registry(
    "model",
    {
        "lenet": Entry("models.lenet:LeNet"),
        "alexnet": Entry("models.alexnet:AlexNet"),
        "vgg16": Entry("models.vgg16:VGG16"),
        "idsia": Entry("models.idsia:IDSIA"),
        "resnet20": Entry("models.he_resnet:ResNet20"),
        "resnet32": Entry("models.he_resnet:ResNet32"),
        "mlp": Entry("models.mlp:MLP"),
        "resnet": Entry("models.odenet:ResNet"),
        "odenet": Entry("models.odenet:ODENet"),
        "residual-odenet": Entry("models.odenet:ResidualODENet"),
    },
    group="toolkit.models",
)


def builder(spec: ModelSpec, framework: str) -> Builder:
    """Return the builder of `spec` for a framework, which need not be the one that trained it.

    Raises UnknownNameError for an unknown family, framework or option, UnavailableError if the
    framework cannot be imported, UsageError for a value of an option or a task that the family
    refuses, and SourceError for a spec that the family would not create.
    """
    family = FAMILIES.create(spec.family)
    family.check(spec)
    return family.builders.create(framework)


def build(spec: ModelSpec, framework: str) -> Any:
    """Build the module of `spec` in a framework, with arbitrary weights. Raises as `builder`."""
    return builder(spec, framework).build(spec)
