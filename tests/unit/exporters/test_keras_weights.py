"""Export of Keras models that others write: every weight is found in ONNX and in LiteRT, and one
changed bit is not overlooked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers
from onnx import numpy_helper

from exporters.base import ExportOptions, StoredTensor
from exporters.litert import LiteRt, LiteRtTensors
from exporters.onnx.from_tensorflow import OnnxFromTensorFlow
from exporters.proof.matching import Match
from exporters.proof.weight_parity import WeightParity, compare
from models.keras.program import write_model
from toolkit.core.artifact import Artifact, Format
from toolkit.core.codec import encode
from toolkit.core.errors import SourceError
from toolkit.sources.backend_reading import weight_parity
from toolkit.sources.resolve import open_artifact


def embedding() -> keras.Model:
    ids = keras.Input((20,), dtype="int32", name="ids")
    return keras.Model(ids, layers.Dense(3)(layers.Flatten()(layers.Embedding(50, 8)(ids))))


def recurrent() -> keras.Model:
    ids = keras.Input((9,), dtype="int32", name="ids")
    y = layers.Embedding(12, 8, mask_zero=True)(ids)
    y = layers.Bidirectional(layers.LSTM(6, return_sequences=True))(y)
    return keras.Model(ids, layers.Dense(3)(layers.GRU(5)(y)))


def lstm() -> keras.Model:
    x = keras.Input((20, 4), name="x")
    return keras.Model(x, layers.Dense(3)(layers.LSTM(8)(x)))


def bidirectional() -> keras.Model:
    """ONNX stores both directions in one tensor; all biases are equal before training."""
    x = keras.Input((20, 4), name="x")
    y = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x)
    return keras.Model(x, layers.Dense(3)(layers.LSTM(8)(y)))


def separable() -> keras.Model:
    """Kernels in front of batch norms that are all alike before training, so that no bias is
    stored, beside another bias of the same size."""
    x = keras.Input((10, 10, 4), name="x")
    y = layers.BatchNormalization(epsilon=1e-3)(layers.SeparableConv2D(8, 3, use_bias=False)(x))
    y = layers.Conv2D(8, 1, bias_initializer="random_normal")(layers.ReLU()(y))
    y = layers.BatchNormalization(epsilon=1e-3)(layers.SeparableConv2D(8, 3, use_bias=False)(y))
    return keras.Model(x, layers.GlobalAveragePooling2D()(y))


def resized(interpolation: str) -> keras.Model:
    x = keras.Input((10, 10, 3), name="x")
    y = layers.UpSampling2D(2, interpolation=interpolation)(layers.Conv2D(8, 3)(x))
    return keras.Model(x, layers.Conv2DTranspose(4, 3, strides=2)(y))


def inverted_residual() -> keras.Model:
    """Two blocks as in MobileNet, whose batch norms are all alike before training."""
    y = x = keras.Input((16, 16, 8), name="x")
    for _ in range(2):
        z = layers.ReLU(6)(layers.BatchNormalization()(layers.Conv2D(24, 1, use_bias=False)(y)))
        z = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(z)
        z = layers.ReLU(6)(layers.BatchNormalization()(z))
        z = layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(z))
        y = layers.Add()([y, z])
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))


def depthwise() -> keras.Model:
    """A transposed and a depthwise kernel of two channels each in front of batch norms."""
    x = keras.Input((8, 8, 4), name="x")
    y = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    y = layers.Conv2DTranspose(5, 3)(layers.BatchNormalization(epsilon=1.001e-5)(y))
    return keras.Model(x, layers.BatchNormalization()(y))


def grouped() -> keras.Model:
    """Keras marks grouped convolutions to be compiled, which keeps their operators out of the
    graph that reads them."""
    x = keras.Input((8, 8, 4), name="x")
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, groups=2, use_bias=False)(x))
    y = layers.Conv2D(4, 3, groups=4, activation="relu")(layers.ReLU()(y))
    return keras.Model(x, layers.GlobalAveragePooling2D()(y))


def trained(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


def sequential() -> keras.Model:
    parts = [keras.Input((10, 10, 3)), layers.DepthwiseConv2D(3), layers.Flatten(), layers.Dense(3)]
    return keras.Sequential(parts)


def gelu() -> keras.Model:
    x = keras.Input((5,), name="x")
    return keras.Model(x, layers.Dense(8, activation=layers.Activation("gelu"))(x))


def scaled(*parts: keras.Layer, shape: tuple[int, ...] = (10, 10, 3)) -> keras.Model:
    """Multiplications and additions of constants, which converters move into the layers."""
    x = keras.Input(shape, name="x")
    return trained(keras.Sequential([x, *parts, layers.Flatten(), layers.Dense(3)]))


def rescaled_convolution() -> keras.Model:
    return scaled(layers.Rescaling(1 / 255), layers.Conv2D(4, 3, activation="relu"))


def shifted_convolution() -> keras.Model:
    return scaled(layers.Rescaling(1 / 127.5, -1), layers.Conv2D(4, 3, use_bias=False))


def rescaled_before_a_norm() -> keras.Model:
    parts = layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(epsilon=3e-3)
    return scaled(layers.Rescaling(1 / 255), *parts, layers.ReLU())


def normalised() -> keras.Model:
    """Of a mean and a variance that are no weights, and that a converter turns into 1 / std."""
    norm = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])
    return scaled(norm, layers.Conv2D(4, 3, padding="same", activation="relu"))


def scaled_per_channel() -> keras.Model:
    behind = layers.Rescaling([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.4, 0.5])
    return scaled(layers.Conv2D(4, 3), behind, layers.ReLU())


def scaled_depthwise() -> keras.Model:
    parts = layers.DepthwiseConv2D(3), layers.Rescaling(3.0, 1.0), layers.ReLU()
    return scaled(*parts, layers.Rescaling(1 / 255), layers.DepthwiseConv2D(3))


def scaled_transposed() -> keras.Model:
    parts = layers.Conv2DTranspose(4, 3), layers.Rescaling([0.1, 0.2, 0.3, 0.4], 0.5)
    return scaled(layers.Rescaling(1 / 255), *parts, layers.ReLU())


def scaled_dense() -> keras.Model:
    parts = layers.Dense(8), layers.Rescaling(2.0, 1.0), layers.ReLU()
    return scaled(layers.Rescaling(1 / 255), layers.Flatten(), *parts)


MODELS: dict[str, Callable[[], keras.Model]] = {
    "embedding": embedding,
    "lstm": lstm,
    "bidirectional": bidirectional,
    "separable, fresh": separable,
    "masked lstm and gru": recurrent,
    "resized bilinear": lambda: resized("bilinear"),
    "resized nearest": lambda: resized("nearest"),
    "inverted residual, fresh": inverted_residual,
    "inverted residual, trained": lambda: trained(inverted_residual()),
    "depthwise and transposed, trained": lambda: trained(depthwise()),
    "grouped, fresh": grouped,
    "grouped, trained": lambda: trained(grouped()),
    "sequential": sequential,
    "exact gelu": gelu,
}
SCALED: dict[str, Callable[[], keras.Model]] = {
    made.__name__: made
    for made in (
        *(rescaled_convolution, shifted_convolution, rescaled_before_a_norm, normalised),
        *(scaled_per_channel, scaled_depthwise, scaled_transposed, scaled_dense),
    )
}
WHOLE = frozenset({Match.IDENTICAL, Match.TRANSPOSED, Match.RESHAPED, Match.REORDERED})
FIXED_BATCH_ONLY = {"bidirectional", "lstm", "masked lstm and gru"}


@pytest.fixture(scope="module", params=[*MODELS, *SCALED])
def source(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, keras.Model, Artifact]:
    keras.utils.set_random_seed(0)
    model = (MODELS | SCALED)[request.param]()
    place = tmp_path_factory.mktemp("saved") / "model"
    place.mkdir()
    write_model(model, request.param, place)
    return request.param, model, open_artifact(place)


@pytest.fixture(scope="module")
def onnx_file(source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("onnx")
    return place / OnnxFromTensorFlow().export(source[2], place, ExportOptions()).entry


@pytest.fixture(scope="module")
def litert_file(source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, _, artifact = source
    place = tmp_path_factory.mktemp("litert")
    if name in FIXED_BATCH_ONLY:
        with pytest.raises(SourceError, match="only with a fixed batch"):
            LiteRt().export(artifact, place, ExportOptions())
        pytest.skip("LiteRT has it with a fixed batch only")
    return place / LiteRt().export(artifact, place, ExportOptions()).entry


def prove(path: Path, source: Artifact) -> WeightParity:
    kind = Format.ONNX if path.suffix == ".onnx" else Format.LITERT
    message = {"source": encode(source), "format": kind, "path": str(path)}
    return WeightParity.from_json(weight_parity(message))


def test_every_weight_is_found_in_onnx(source, onnx_file: Path) -> None:
    name, model, artifact = source
    found = prove(onnx_file, artifact)
    assert found.passed, found.failures()
    constants = 2 if name in ("normalised", "scaled_per_channel") else 0
    constants += name == "scaled_transposed"
    assert found.total == len([w for w in model.get_weights() if w.size > 1]) + constants
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    (taken,) = artifact.signature.inputs
    shape = [2, *taken.shape[1:]]
    x = rng.integers(0, 9, shape) if taken.dtype == "int32" else rng.standard_normal(shape)
    (got,) = session.run(None, {taken.name: x.astype(taken.dtype)})
    np.testing.assert_allclose(got, model(x.astype(taken.dtype)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("source", MODELS, indirect=True)
def test_a_changed_bit_of_any_weight_is_found(source, onnx_file: Path, tmp_path: Path) -> None:
    _, _, artifact = source
    graph = onnx.load(onnx_file)
    for tensor in graph.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < 8 or (array == array.flat[0]).all():
            continue
        kept = tensor.raw_data
        tensor.raw_data = kept[:2] + bytes([kept[2] ^ 0x40]) + kept[3:]
        onnx.save(graph, tmp_path / "altered.onnx")
        assert not prove(tmp_path / "altered.onnx", artifact).passed, tensor.name
        tensor.raw_data = kept


def test_every_weight_is_found_in_litert(source, litert_file: Path) -> None:
    found = prove(litert_file, source[2])
    assert found.passed, found.failures()


@pytest.mark.parametrize("source", SCALED, indirect=True)
def test_a_change_of_any_folded_number_is_found(
    source, litert_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousandth, in one value of each tensor that LiteRT stores."""
    for tensor in LiteRtTensors().stored_tensors(litert_file):
        if tensor.array.dtype.kind == "f" and tensor.array.size > 1:
            array = tensor.array.copy()
            array.flat[-1] *= 1.001
            assert not passes_with(array, tensor, litert_file, source[2], monkeypatch)


def test_a_change_of_the_lowest_bit_is_found(
    source, litert_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one value of each weight that LiteRT stores as it is."""
    name, _, artifact = source
    whole = {t.stored_as for t in prove(litert_file, artifact).tensors if t.match in WHOLE}
    changed = 0
    for tensor in LiteRtTensors().stored_tensors(litert_file):
        if tensor.name in whole and tensor.array.dtype == np.float32 and tensor.array.size > 1:
            array = tensor.array.copy()
            array.view(np.int32).flat[-1] ^= 1
            assert not passes_with(array, tensor, litert_file, artifact, monkeypatch)
            changed += 1
    assert changed or name == "depthwise and transposed, trained"  # all of it is folded


def passes_with(
    array: np.ndarray,
    changed: StoredTensor,
    path: Path,
    artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
) -> bool:
    """Whether the proof passes if a tensor of the file had these values."""
    altered = [
        replace(tensor, array=array) if tensor.name == changed.name else tensor
        for tensor in LiteRtTensors().stored_tensors(path)
    ]
    with monkeypatch.context() as patched:
        patched.setattr(LiteRtTensors, "stored_tensors", lambda *_: altered)
        return prove(path, artifact).passed


def test_weights_that_inference_does_not_read_are_named(tmp_path: Path) -> None:
    norm = layers.Normalization(axis=-1, name="norm")
    norm.adapt(np.random.default_rng(0).normal(3, 2, (100, 6)).astype(np.float32))
    parts = [
        keras.Input((6,)),
        norm,
        layers.SpectralNormalization(layers.Dense(3), name="spectral"),
    ]
    _, unread = write_model(keras.Sequential(parts, name="sequential"), "net.py:net", tmp_path)
    assert unread == {"norm/mean", "norm/variance", "norm/count", "sequential/spectral/vector_u"}


def test_gates_in_an_order_that_no_framework_has_are_not_explained() -> None:
    kernel = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    gates = np.split(kernel, 4, axis=1)
    for order, match in (((0, 3, 1, 2), Match.REORDERED), ((3, 2, 1, 0), Match.MISSING)):
        moved = np.concatenate([gates[place] for place in order], axis=1)
        stored = [StoredTensor(name="W", array=moved.T[None], readers=("node",))]
        found = compare({"kernel": kernel}, stored)
        assert found.tensors[0].match is match
