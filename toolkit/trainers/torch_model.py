"""Model, loss and device settings that all training loops in torch share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.torch.base import TorchBuilder
from toolkit.core import nvidia
from toolkit.core.errors import UnavailableError, UsageError
from toolkit.core.specs import ModelSpec, TaskKind
from toolkit.trainers.base import Job


@final
class OwnBuilder(TorchBuilder):
    """Builder of a user's module, whose weights keep their names."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        self._make = make

    def build(self, spec: ModelSpec) -> nn.Module:
        return self._make()


@final
class TorchModel:
    """Module of a job on its device, with its loss and metric.

    The constructor sets process-wide options of torch: the number of threads, deterministic
    algorithms, and float32 precision without TF32, which cuDNN uses by default. `close` restores
    them, except for the precision of matrix products and CUBLAS_WORKSPACE_CONFIG. Raises as
    `Trainer.open`.
    """

    def __init__(self, job: Job, builder: TorchBuilder) -> None:
        settings = job.settings
        self.device = _device(settings.device)
        self._threads = torch.get_num_threads()
        self._deterministic = torch.are_deterministic_algorithms_enabled()
        torch.set_num_threads(settings.threads)
        nvidia.hush_tf32_advice()
        torch.set_float32_matmul_precision("highest")
        self._tf32 = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        if settings.deterministic:  # read when the first cuBLAS kernel runs
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(settings.deterministic)
        self._builder = builder
        self.module = builder.build(job.spec)
        builder.restore(self.module, job.weights)
        self.module.to(self.device)
        task = job.spec.task
        assert task is not None
        self.is_classification = task.kind is TaskKind.CLASSIFICATION
        self._check(job, task.outputs)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy of logits, or the mean squared error."""
        if self.is_classification:
            return F.cross_entropy(outputs, targets)
        return F.mse_loss(outputs, targets)

    def metric_sum(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the number of correct samples, or the sum of their mean absolute errors."""
        if self.is_classification:
            return (outputs.argmax(1) == targets).sum()
        return (outputs - targets).abs().mean(dim=1).sum()

    @torch.no_grad()
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        self.module.eval()
        return self.module(self.on_device(inputs)).cpu().numpy()

    def on_device(self, array: np.ndarray) -> torch.Tensor:
        """Return the array as a tensor on the device.

        On a CPU it shares the memory of a C-contiguous, writable array; otherwise it is a copy.
        """
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self.device)

    def weights(self) -> dict[str, np.ndarray]:
        return self._builder.weights(self.module)

    def restore(self, weights: dict[str, np.ndarray]) -> None:
        self._builder.restore(self.module, weights)

    def provenance(self) -> dict[str, Any]:
        cuda = self.device.type == "cuda"
        return {
            "version": torch.__version__,
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu",
            "threads": torch.get_num_threads(),
            "dtype": self._dtype(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "mkldnn": torch.backends.mkldnn.enabled,
            **(self._of_cuda() if cuda else {}),
        }

    def _dtype(self) -> str:
        """Return the dtype of the parameters, "mixed" if they have several."""
        names = {str(p.dtype).removeprefix("torch.") for p in self.module.parameters()}
        return names.pop() if len(names) == 1 else "mixed"

    def _of_cuda(self) -> dict[str, Any]:
        """Return the CUDA settings as torch reports them."""
        return {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "matmul_allow_tf32": torch.backends.cuda.matmul.allow_tf32,
            "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
            "peak_device_bytes": torch.cuda.max_memory_allocated(self.device),
        }

    def close(self) -> None:
        torch.set_num_threads(self._threads)
        torch.backends.cudnn.allow_tf32 = self._tf32
        torch.use_deterministic_algorithms(self._deterministic)

    def _check(self, job: Job, outputs: int) -> None:
        """Raise UsageError if a user's module does not fit the data. Family models always do."""
        if job.module is None:
            return
        rows = job.train.inputs[:2]
        try:
            shape = self.predict(rows.copy()).shape
        except Exception as error:  # user code may raise anything
            self.close()
            raise UsageError(
                f"The model cannot take rows of shape {list(rows.shape[1:])}, which the data set "
                f"gives: {type(error).__name__}: {error}.",
                hint="Give another data set, or fix the model.",
            ) from error
        if shape != (len(rows), outputs):
            self.close()
            raise UsageError(
                f"The model gives outputs of shape {list(shape)} for {len(rows)} rows, expected "
                f"{[len(rows), outputs]}.",
                hint="The data set needs that many values per sample: give another, or fix the "
                "model.",
            )


def _device(name: str) -> torch.device:
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()) or name.endswith(":"):
        raise UsageError(
            f"Got device {name!r}, expected cpu, cuda or cuda:N.", hint="Give --device cpu."
        )
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UnavailableError(
            f"Asked to train on {name}; torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} such devices here.",
            hint="Give --device cpu, or install a CUDA build of torch and its driver.",
        )
    return torch.device(name)
