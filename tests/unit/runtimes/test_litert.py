"""LiteRT files with dynamic axes that have no names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from runtimes import RUNTIMES
from toolkit.core.session import SessionOptions
from toolkit.sources.resolve import open_artifact


def test_an_axis_without_a_name_takes_any_extent(tmp_path: Path) -> None:
    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"y": tf.nn.relu(x) * 2.0},
        input_signature=[tf.TensorSpec([None, None], tf.float32, "x")],
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.serve)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    artifact = open_artifact(tmp_path / "model.tflite")
    assert artifact.signature.inputs[0].shape[1] is None
    with RUNTIMES.create("litert").open(artifact, SessionOptions()) as session:
        for shape in ((2, 3), (2, 5), (4, 3)):
            x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
            np.testing.assert_array_equal(session.run({"x": x})["y"], np.maximum(x, 0) * 2)
