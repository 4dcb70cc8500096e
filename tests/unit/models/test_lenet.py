"""LeNet as a family: its size, its signature, and its weights put back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models import FAMILIES, build
from models.base import Size
from models.torch.base import restored
from toolkit.core.errors import IntegrityError, UnknownNameError
from toolkit.core.specs import ModelSpec, Task, TaskKind


@pytest.fixture
def spec() -> ModelSpec:
    return FAMILIES.create("lenet").spec("torch")


def arrays(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def size(spec: ModelSpec) -> Size:
    return FAMILIES.create("lenet").builders.create("torch").size(spec)


def test_size_is_that_of_the_paper(spec: ModelSpec):
    assert size(spec) == Size(parameters=62_006, state_dict_bytes=248_024)


def test_size_is_that_of_the_built_module(spec: ModelSpec):
    weights = arrays(build(spec, "torch"))
    assert sum(array.size for array in weights.values()) == 62_006
    assert sum(array.nbytes for array in weights.values()) == 248_024
    assert len(weights) == 10


def test_classes_reach_signature_size_and_module():
    task = Task(kind=TaskKind.CLASSIFICATION, input_shape=(3, 32, 32), outputs=3)
    spec = FAMILIES.create("lenet").spec("torch", task=task, data="digits")
    assert spec.data == "digits"
    assert spec.signature.outputs[0].shape == ("batch", 3)
    assert size(spec).parameters == 62_006 - 7 * 85
    assert build(spec, "torch").fc3.out_features == 3


@pytest.mark.parametrize("batch", [1, 5])
def test_module_takes_and_gives_what_the_signature_says(spec: ModelSpec, batch: int):
    images = np.zeros((batch, 3, 32, 32), np.float32)
    assert spec.signature.check({"input": images}) == {"batch": batch}
    logits = build(spec, "torch")(torch.from_numpy(images))
    (output,) = spec.signature.outputs
    assert tuple(logits.shape) == output.resolve({"batch": batch})
    assert str(logits.dtype) == f"torch.{output.dtype}"


def test_restored_module_has_every_bit_and_is_in_evaluation_mode(spec: ModelSpec):
    weights = arrays(build(spec, "torch"))
    for array in weights.values():
        array.setflags(write=False)
    module = restored(spec, weights)
    assert not module.training
    assert all(arrays(module)[name].tobytes() == weights[name].tobytes() for name in weights)


def test_restored_module_does_not_share_the_arrays(spec: ModelSpec):
    weights = {name: array.copy() for name, array in arrays(build(spec, "torch")).items()}
    module = restored(spec, weights)
    weights["fc3.bias"][:] = 7
    assert not (module.fc3.bias == 7).any()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fc3.bias": None}, "fc3.bias"),
        ({"other": np.zeros(1, np.float32)}, "other"),
        ({"fc3.bias": np.zeros(11, np.float32)}, "fc3.bias"),
    ],
    ids=["missing", "unexpected", "other shape"],
)
def test_weights_that_do_not_fit_are_named(spec: ModelSpec, change: dict, named: str):
    weights = {**arrays(build(spec, "torch")), **change}
    fitting = {name: array for name, array in weights.items() if array is not None}
    with pytest.raises(IntegrityError, match=named):
        restored(spec, fitting)


def test_weights_of_another_dtype_do_not_fit(spec: ModelSpec):
    wide = {name: array.astype(np.float64) for name, array in arrays(build(spec, "torch")).items()}
    with pytest.raises(IntegrityError):
        restored(spec, wide)


def test_framework_without_a_builder_is_unknown():
    with pytest.raises(UnknownNameError, match="no framework named 'abacus'"):
        build(FAMILIES.create("lenet").spec("torch"), "abacus")


def test_unknown_family_is_unknown():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'lenet'"):
        FAMILIES.create("lenett")
