"""What every exporter must do, and the reader of what it writes, asked of all alike.

A new target in the registry is picked up by itself. One that cannot be had on the machine of the
tests is skipped with its reason, unless REQUIRED names it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import toolkit
from exporters import EXPORTERS, READERS, ROUTES
from exporters.base import StoredTensor
from exporters.weight_parity import Match, compare
from models import FAMILIES, builder
from models.initial import fresh_weights
from toolkit.core.artifact import Artifact, Checkpoint
from toolkit.core.errors import SourceError, UnavailableError
from toolkit.steps.parity_weights import stored_tensors, weights_of

REQUIRED = {"onnx", "torch-export", "aotinductor", "openvino"}
# Kernels of equal shapes, a dense layer, batch norms; one kernel that is read many times.
MODELS = ["resnet20", "residual-odenet"]
MOST_PAIRS = 60


@dataclass(frozen=True, kw_only=True)
class Written:
    """An artifact, the weights that it was made from, and what its reader finds in it."""

    artifact: Artifact
    weights: Mapping[str, np.ndarray]
    stored: list[StoredTensor]


def checkpoint_of(model: str, place: Path) -> Checkpoint:
    """Fresh weights, the statistics of batch norms like those of a trained model."""
    spec = FAMILIES.create(model).spec("torch")
    maker = builder(spec, "torch")
    rng = np.random.default_rng(0)
    shapes = {name: a.shape for name, a in maker.weights(maker.build(spec)).items()}
    weights = dict(fresh_weights(shapes, 0))
    for name in weights:
        if name.endswith("running_mean"):
            weights[name] = rng.normal(0, 0.1, shapes[name]).astype(np.float32)
        if name.endswith("running_var"):
            weights[name] = rng.uniform(0.5, 2, shapes[name]).astype(np.float32)
    return Checkpoint.save(
        place, spec=spec, weights=weights, seed=0, epoch=0, metrics={}, training={}
    )


@pytest.fixture(scope="module", params=itertools.product(EXPORTERS.names(), MODELS), ids="-".join)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    target, model = request.param
    missing = None
    try:
        EXPORTERS.create(target)
    except UnavailableError as error:
        missing = error.problem
    if missing:
        assert target not in REQUIRED, f"{target} is required here: {missing}"
        pytest.skip(missing)
    place = tmp_path_factory.mktemp("export")
    source = place / "checkpoint"
    source.mkdir()
    checkpoint = checkpoint_of(model, source)
    done = toolkit.export(source, to=target, out=place / "artifact")
    assert done.weights.passed
    assert done.outputs.passed
    artifact = Artifact.load(place / "artifact")
    stored = list(stored_tensors(artifact.format, artifact.path))
    weights = {
        name: array
        for name, array in checkpoint.weights().items()
        if not name.endswith("num_batches_tracked")
    }
    return Written(artifact=artifact, weights=weights, stored=stored)


def flipped(array: np.ndarray, bit: int) -> np.ndarray:
    data = bytearray(array.tobytes())
    data[bit // 8] ^= 1 << bit % 8
    return np.frombuffer(bytes(data), array.dtype).reshape(array.shape)


def test_required_targets_are_registered() -> None:
    assert set(EXPORTERS.names()) >= REQUIRED


def test_every_format_that_is_written_can_be_read() -> None:
    for name in EXPORTERS.names():
        try:
            assert EXPORTERS.create(name).format in READERS.names()
        except UnavailableError:
            assert name not in REQUIRED


def test_every_weight_is_there_bit_for_bit(written: Written) -> None:
    parity = compare(written.weights, written.stored)
    assert parity.passed
    kept = (Match.IDENTICAL, Match.TRANSPOSED, Match.RESHAPED)
    assert all(tensor.match in kept for tensor in parity.tensors)
    assert parity.total == len(written.weights)


def test_every_flipped_bit_is_found(written: Written) -> None:
    """Of each weight the lowest bit, the highest, and one between, each by itself."""
    for name, array in written.weights.items():
        bits = array.nbytes * 8
        for bit in {0, bits - 1, bits // 3}:
            altered = {**written.weights, name: flipped(array, bit)}
            parity = compare(altered, written.stored)
            assert not parity.passed, (name, bit)
            assert name in {tensor.name for tensor in parity.failures()}


def test_every_swap_of_two_weights_is_found(written: Written) -> None:
    weights = written.weights
    pairs = [
        (one, other)
        for one, other in itertools.combinations(weights, 2)
        if weights[one].shape == weights[other].shape
        and not np.array_equal(weights[one], weights[other])
    ]
    assert pairs
    kernels = [pair for pair in pairs if weights[pair[0]].ndim > 1]
    chosen = np.random.default_rng(0).permutation(len(pairs))[:MOST_PAIRS]
    for one, other in [*kernels[:MOST_PAIRS], *(pairs[index] for index in chosen)]:
        swapped = {**weights, one: weights[other], other: weights[one]}
        parity = compare(swapped, written.stored)
        found = {tensor.name for tensor in parity.failures()}
        assert {one, other} <= found, (one, other)


def test_it_says_what_it_came_from(written: Written) -> None:
    artifact = written.artifact
    assert [parent.kind for parent in artifact.parents] == ["checkpoint"]
    assert artifact.parent_checkpoint().verify() is None
    assert artifact.precision == "float32"
    assert (artifact.directory / "parity.json").is_file()


def test_it_is_the_model_in_every_form_that_came_before(written: Written) -> None:
    """From the artifact back to the checkpoint, and from artifact to artifact."""
    again = compare(weights_of(written.artifact), written.stored)
    assert again.passed
    assert again.count(Match.IDENTICAL) == len(again.tensors)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(written: Written, tmp_path: Path, share: float) -> None:
    content = written.artifact.path.read_bytes()
    path = tmp_path / written.artifact.path.name
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SourceError):
        stored_tensors(written.artifact.format, path)


@pytest.mark.parametrize("name", sorted(ROUTES))
def test_it_takes_and_writes_what_is_said_of_it(name: str) -> None:
    """Without importing it."""
    try:
        exporter = EXPORTERS.create(name)
    except UnavailableError as error:
        pytest.skip(error.problem)
    assert ROUTES[name] == (exporter.takes, exporter.format)
