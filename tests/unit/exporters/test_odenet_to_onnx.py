"""ODE layers through the exporter: every weight is found, in plain operators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from exporters.onnx_from_torch import OnnxFromTorch
from exporters.weight_parity import compare
from models import FAMILIES, builder
from models.initial import fresh_weights
from models.torch.base import restored
from toolkit.core.artifact import Checkpoint


@pytest.mark.parametrize("family", ["odenet", "residual-odenet"])
def test_every_weight_and_output_is_the_model_s(family: str, tmp_path: Path):
    spec = FAMILIES.create(family).spec("torch", settings={"accuracy": 1.0})
    maker = builder(spec, "torch")
    own = maker.weights(maker.build(spec))
    weights = fresh_weights({name: array.shape for name, array in own.items()}, 0)
    for number, name in enumerate(sorted(weights)):
        if weights[name].ndim == 1:  # or norms of one width would share their values
            weights[name] = weights[name] + np.float32(0.01 * number)
    (tmp_path / "checkpoint").mkdir()
    checkpoint = Checkpoint.save(
        tmp_path / "checkpoint",
        spec=spec,
        weights=weights,
        seed=0,
        epoch=0,
        metrics={},
        training={},
    )
    path = tmp_path / OnnxFromTorch().export(checkpoint, tmp_path).entry
    parity = compare(weights, OnnxFromTorch().stored_tensors(path))
    assert parity.passed, parity.failures()
    graph = onnx.load(path)
    assert not graph.functions
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    (got,) = ReferenceEvaluator(graph).run(None, {"input": images})
    expected = restored(spec, weights)(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
