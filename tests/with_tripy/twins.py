"""A family in torch and in Tripy with the same weights, and what each gives."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import nvtripy as tp
import torch

from models import FAMILIES, builder
from models.base import Builder
from models.initial import fresh_weights
from toolkit.core.specs import ModelSpec

BATCHES = (1, 3, 64)
SMALL: Mapping[str, Any] = {"accuracy": 0.34}  # three steps of an ODE show as much as thirty


class Twins:
    """Kernels by He et al., and norms that all do something."""

    def __init__(self, family: str) -> None:
        self.spec: ModelSpec = self._spec(family)
        self.torch_builder: Builder = builder(self.spec, "torch")
        self.builder: Builder = builder(self.spec, "tripy")
        self.torch = self.torch_builder.build(self.spec).eval()
        shapes = {n: a.shape for n, a in self.torch_builder.weights(self.torch).items()}
        rng = np.random.default_rng(0)
        self.weights = {
            name: array + rng.uniform(-0.3, 0.3, array.shape).astype(np.float32)
            if array.ndim == 1
            else array
            for name, array in fresh_weights(shapes, 0, "he-normal").items()
        }
        self.torch_builder.restore(self.torch, self.weights)

    @staticmethod
    def _spec(family: str) -> ModelSpec:
        known = FAMILIES.create(family)
        settings = {name: value for name, value in SMALL.items() if name in known.options}
        return known.spec("torch", settings=settings)

    def module(self) -> Any:
        found = self.builder.build(self.spec)
        self.builder.restore(found, self.weights)
        return found

    def rows(self, batch: int) -> np.ndarray:
        assert self.spec.task is not None
        rng = np.random.default_rng(batch)
        return rng.standard_normal((batch, *self.spec.task.input_shape)).astype(np.float32)

    def expected(self, batch: int) -> np.ndarray:
        """What torch gives in float64, so that the error is not that of torch as well."""
        exact = copy.deepcopy(self.torch).double()
        with torch.inference_mode():
            return exact(torch.from_numpy(self.rows(batch)).double()).numpy()

    def rounding(self) -> float:
        """The largest error of torch in float32, by which processors differ."""
        batch = max(BATCHES)
        with torch.inference_mode():
            found = self.torch(torch.from_numpy(self.rows(batch))).numpy()
        return float(np.abs(found - self.expected(batch)).max())

    def executable(self, module: Any) -> Any:
        assert self.spec.task is not None
        shape = (tp.NamedDimension("batch", 1, 8, 64), *self.spec.task.input_shape)
        return tp.compile(module, args=[tp.InputInfo(shape, dtype=tp.float32)])

    def error(self, executable: Any, batch: int) -> float:
        """The largest difference to torch in float64, in units of `rounding`."""
        expected = self.expected(batch)
        found = given(executable, self.rows(batch))
        assert (found.shape, found.dtype) == (expected.shape, np.float32)
        return float(np.abs(found - expected).max()) / self.rounding()


def given(executable: Any, rows: np.ndarray) -> np.ndarray:
    found = executable(tp.copy(tp.Tensor(rows), tp.device("gpu")))
    executable.stream.synchronize()
    return np.array(np.from_dlpack(tp.copy(found, tp.device("cpu"))))
