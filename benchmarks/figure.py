"""One line of the table: what was found beside what is promised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matrix import fresh

import toolkit


@dataclass(frozen=True, kw_only=True)
class Figure:
    what: str
    found: str
    promised: str
    kept: bool


@dataclass(frozen=True, kw_only=True)
class Place:
    """A directory of the run's own, with a trained LeNet in it and what was made of it."""

    directory: Path

    @property
    def artifact(self) -> Path:
        """As `toolkit export` writes it: its reference is torch on the checkpoint."""
        return self.directory / "lenet-onnx"

    @property
    def results(self) -> Path:
        return self.directory / "results"

    def onnx(self, batch: int, name: str = "lenet") -> Path:
        """The graph of a model alone, its batch fixed: its reference is ONNX Runtime itself.

        LeNet is the trained one; any other has fresh weights.
        """
        import onnx

        path = self.directory / f"{name}-{batch}.onnx"
        if not path.exists():
            artifact = self.directory / f"{name}-onnx"
            if not artifact.exists():
                checkpoint = fresh(name, self.directory / name)
                toolkit.export(checkpoint.directory, to="onnx", out=artifact)
            model = onnx.load(artifact / "model.onnx")
            for value in (*model.graph.input, *model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = batch
            onnx.save(model, path)
        return path
