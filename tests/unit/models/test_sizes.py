"""How large the families are: figures of the studies and papers, and those worked out by hand."""

from __future__ import annotations

import pytest

from models import FAMILIES, builder
from toolkit.core.errors import UsageError
from toolkit.core.specs import Task, TaskKind


def classes(shape: tuple[int, ...], outputs: int) -> Task:
    return Task(kind=TaskKind.CLASSIFICATION, input_shape=shape, outputs=outputs)


SMALL = (3, 32, 32)
VGG_KERNELS = 9 * (
    3 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 2 * 256 * 256 + 256 * 512 + 5 * 512 * 512
)
VGG_MAPS = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512
SIZES = {
    ("lenet", None): (62_006, 4 * 62_006),
    ("alexnet", None): (23_272_266, 4 * 23_272_266),
    ("alexnet", classes(SMALL, 100)): (23_272_266 + 90 * 4097, 4 * (23_272_266 + 90 * 4097)),
    # A convolution's bias, and gamma and beta of its norm; then running mean and variance, a count.
    ("vgg16", None): (
        n := VGG_KERNELS + 3 * VGG_MAPS + 2 * 513 * 512 + 513 * 100,
        4 * (n + 2 * VGG_MAPS) + 13 * 8,
    ),
    ("vgg16", classes(SMALL, 10)): (n - 90 * 513, 4 * (n - 90 * 513 + 2 * VGG_MAPS) + 13 * 8),
    ("idsia", None): (1_510_863, 4 * 1_510_863),
    # Option A adds nothing: 0.27 and 0.46 million, as table 6 of the paper has them.
    ("resnet20", classes(SMALL, 10)): (269_722, 4 * (269_722 + 1_376) + 19 * 8),
    ("resnet32", classes(SMALL, 10)): (464_154, 4 * (464_154 + 2_272) + 31 * 8),
    ("resnet20", None): (269_722 + 33 * 65, 4 * (269_722 + 33 * 65 + 1_376) + 19 * 8),
    ("resnet32", None): (464_154 + 33 * 65, 4 * (464_154 + 33 * 65 + 2_272) + 31 * 8),
    ("mlp", None): (1_281, 4 * 1_281),
    ("mlp", classes((20,), 3)): (20 * 128 + 128 + 128 * 3 + 3, 4 * (20 * 128 + 128 + 128 * 3 + 3)),
}


@pytest.mark.parametrize(("name", "task"), SIZES, ids=str)
def test_size(name: str, task: Task | None) -> None:
    spec = FAMILIES.create(name).spec("torch", task=task)
    size = builder(spec, "torch").size(spec)
    assert (size.parameters, size.state_dict_bytes) == SIZES[name, task]


@pytest.mark.parametrize("name", ["resnet20", "resnet32"])
def test_the_side_changes_the_input_and_no_weight(name: str) -> None:
    family = FAMILIES.create(name)
    small, large = (family.spec("torch", settings={"side": side}) for side in (32, "64"))
    assert large.signature.inputs[0].shape == ("batch", 3, 64, 64)
    torch = builder(small, "torch")
    assert torch.size(small) == torch.size(large)


@pytest.mark.parametrize("side", [31, 40, "large"])
def test_a_side_that_the_study_has_not_is_refused(side: int | str) -> None:
    with pytest.raises(UsageError, match="expected 32 or 48 or 64"):
        FAMILIES.create("resnet20").spec("torch", settings={"side": side})


def test_the_perceptron_answers_classes_and_values() -> None:
    family = FAMILIES.create("mlp")
    spec = family.spec("torch", task=classes((4,), 3), settings={"hidden": 7})
    assert spec.signature.outputs[0].name == "logits"
    assert builder(spec, "torch").size(spec).parameters == 4 * 7 + 7 + 7 * 3 + 3
    assert family.spec("torch").signature.outputs[0].name == "values"


def test_the_perceptron_takes_no_images() -> None:
    with pytest.raises(UsageError, match="expected rows of one axis"):
        FAMILIES.create("mlp").spec("torch", task=classes(SMALL, 10))
