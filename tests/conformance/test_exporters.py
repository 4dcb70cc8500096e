"""What every exporter must do, and the reader of what it writes, asked of all alike.

A new target in the registry is picked up by itself. One that cannot be had on the machine of the
tests is skipped with its reason, unless REQUIRED names it.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import toolkit
from exporters import EXPORTERS, READERS, ROUTES
from exporters.base import StoredTensor
from exporters.proof.weight_parity import Match, TensorParity, WeightParity, compare
from models import FAMILIES, builder
from models.initial import fresh_weights
from models.torch.base import restored
from tests.conformance.expected import mark_expected
from toolkit.core.artifact import Artifact, Checkpoint
from toolkit.core.errors import SourceError, UnavailableError
from toolkit.core.session import SessionOptions
from toolkit.core.specs import ModelSpec
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.sources.backend_reading import weights_of
from toolkit.sources.resolve import candidates
from toolkit.sources.runtime_selection import missing_gpu

# TensorRT takes a GPU; tests/with_tripy has Tripy in a process of its own.
REQUIRED = set(ROUTES) - {"tensorrt", "tripy"}
# Kernels of equal shapes, a dense layer, batch norms; one kernel that is read many times.
MODELS = ["resnet20", "residual-odenet"]
SETTINGS = {"residual-odenet": {"accuracy": 0.5}}  # two readings of the kernel
MOST_PAIRS = 24
MOST_TENSORS = 32  # whose bits are flipped
AT_ONCE = 4  # of them
ROWS = np.random.default_rng(1).standard_normal((4, 3, 32, 32)).astype(np.float32)
FOLDED = "its converter folds batch norms"
EXPECTED_FAILURES = {
    (target, "test_every_weight_is_there_bit_for_bit"): FOLDED
    for target in ("tensorrt-rtx", "litert", "onnx-from-tensorflow")
}
KEPT = (Match.IDENTICAL, Match.TRANSPOSED, Match.RESHAPED)
# Of a float32, the sign, the highest bit of the exponent, and one in the middle of the mantissa.
COARSE_BITS = (31, 30, 12)


@dataclass(frozen=True, kw_only=True)
class Written:
    """An artifact, the weights that it was made from, what became of each, what its reader finds in
    it, and what of that a further form would have to have."""

    target: str
    artifact: Artifact
    weights: Mapping[str, np.ndarray]
    stored: list[StoredTensor]
    forms: Mapping[str, np.ndarray]
    outputs: np.ndarray

    def parity(self) -> WeightParity:
        return compare(self.weights, self.stored)

    def differs(self, weights: Mapping[str, np.ndarray]) -> bool:
        """Whether the model with other weights gives other outputs than the artifact."""
        counts = {
            name: np.zeros((), np.int64)
            for name in (f"{n.rpartition('.')[0]}.num_batches_tracked" for n in weights)
            if name.replace("num_batches_tracked", "running_var") in weights
        }
        return not np.allclose(
            outputs_of(self.artifact.model, {**weights, **counts}), self.outputs, 1e-4, 1e-4
        )


def outputs_of(spec: ModelSpec, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        return restored(spec, weights)(torch.from_numpy(ROWS)).numpy()


def checkpoint_of(model: str, place: Path) -> Checkpoint:
    """Fresh weights, the batch norms like those of a trained model: none of 0 or 1."""
    spec = FAMILIES.create(model).spec("torch", settings=SETTINGS.get(model))
    maker = builder(spec, "torch")
    rng = np.random.default_rng(0)
    shapes = {name: a.shape for name, a in maker.weights(maker.build(spec)).items()}
    weights = dict(fresh_weights(shapes, 0))
    for name in weights:
        if name.endswith("running_mean"):
            weights[name] = rng.normal(0, 0.1, shapes[name]).astype(np.float32)
        if name.endswith("running_var"):
            layer = name.removesuffix(".running_var")
            weights[name] = rng.uniform(0.5, 2, shapes[name]).astype(np.float32)
            weights[f"{layer}.weight"] = rng.uniform(0.5, 2, shapes[name]).astype(np.float32)
            weights[f"{layer}.bias"] = rng.normal(0, 0.1, shapes[name]).astype(np.float32)
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
    stored = list(READERS.create(artifact.format).stored_tensors(artifact.path))
    forms = weights_of(artifact)
    with WorkerProcess(threads=2, timeout_s=240) as worker:
        checked_with = ROUTES[target].checked_with
        runtime = "torch" if missing_gpu(checked_with) else checked_with
        worker.open(runtime, candidates(artifact), SessionOptions(threads=2))
        got = worker.run({"input": ROWS})
    weights = {
        name: array
        for name, array in checkpoint.weights().items()
        if not name.endswith("num_batches_tracked")
    }
    return Written(
        target=target,
        artifact=artifact,
        weights=weights,
        stored=stored,
        forms=forms,
        outputs=got["logits"],
    )


@pytest.fixture(autouse=True)
def expected_failure(request: pytest.FixtureRequest) -> None:
    """Marks what a target is known not to do."""
    if "written" in request.fixturenames:
        mark_expected(request, request.getfixturevalue("written").target, EXPECTED_FAILURES)


def flipped(array: np.ndarray, bit: int) -> np.ndarray:
    data = bytearray(array.tobytes())
    data[bit // 8] ^= 1 << bit % 8
    return np.frombuffer(bytes(data), array.dtype).reshape(array.shape)


def test_required_targets_are_registered() -> None:
    assert set(EXPORTERS.names()) >= REQUIRED


def test_every_format_that_is_written_can_be_read() -> None:
    for name in EXPORTERS.names():
        try:
            assert EXPORTERS.create(name).route.format in READERS.names()
        except UnavailableError:
            assert name not in REQUIRED


def test_every_weight_is_explained(written: Written) -> None:
    """Bit for bit, or folded: a batch norm alone, or with the convolution before it."""
    parity = written.parity()
    assert parity.passed
    assert parity.total == len(written.weights)
    assert {tensor.match for tensor in parity.tensors} <= {*KEPT, Match.FOLDED}


def test_every_weight_is_there_bit_for_bit(written: Written) -> None:
    assert all(tensor.match in KEPT for tensor in written.parity().tensors)


def test_every_flipped_bit_is_found(written: Written) -> None:
    """Of some weights the lowest bit, the highest, and one between; in a few weights at a time,
    which takes a fraction of the time.

    Not the lowest of a tensor that was folded: the product of the fold is rounded, and hides what
    is less than its rounding. There, bits that change the product.
    """
    tensors = written.parity().tensors
    order = np.random.default_rng(0).permutation(len(tensors))[:MOST_TENSORS]
    for chosen in np.array_split(order, -(-len(order) // AT_ONCE)):
        bits = {tensors[place].name: _bits(written, tensors[place]) for place in chosen}
        for turn in range(max(map(len, bits.values()))):
            altered = {
                name: flipped(written.weights[name], several[turn])
                for name, several in bits.items()
                if turn < len(several)
            }
            parity = compare({**written.weights, **altered}, written.stored)
            found = {tensor.name for tensor in parity.failures()}
            assert altered.keys() <= found, (turn, altered.keys() - found)


def _bits(written: Written, tensor: TensorParity) -> Sequence[int]:
    bits = written.weights[tensor.name].nbytes * 8
    if tensor.match is Match.FOLDED:
        return sorted({place + bit for place in (0, bits - 32) for bit in COARSE_BITS})
    return sorted({0, bits - 1, bits // 3})


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
        # Where a converter keeps no names there are values alone, and the outputs tell.
        assert {one, other} & found or written.differs(swapped), (one, other)


def test_it_says_what_it_came_from(written: Written) -> None:
    artifact = written.artifact
    assert [parent.kind for parent in artifact.parents] == ["checkpoint"]
    assert artifact.parent_checkpoint().verify() is None
    assert artifact.precision == "float32"
    assert (artifact.directory / "parity.json").is_file()


def test_it_is_the_model_in_every_form_that_came_before(written: Written) -> None:
    """From the artifact back to the checkpoint, and from artifact to artifact: what the reader
    finds are tensors of names of their own, each of which it finds again."""
    again = compare(written.forms, written.stored)
    assert again.passed
    assert again.count(Match.IDENTICAL) == len(again.tensors)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(written: Written, tmp_path: Path, share: float) -> None:
    """With all that belongs to it beside it."""
    place = tmp_path / "artifact"
    shutil.copytree(written.artifact.directory, place)
    path = place / written.artifact.entry
    content = path.read_bytes()
    reader = READERS.create(written.artifact.format)
    assert reader.stored_tensors(path)
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SourceError):
        reader.stored_tensors(path)


@pytest.mark.parametrize("name", sorted(ROUTES))
def test_its_route_is_the_one_that_is_known_without_it(name: str) -> None:
    try:
        assert EXPORTERS.create(name).route is ROUTES[name]
    except UnavailableError as error:
        pytest.skip(error.problem)
