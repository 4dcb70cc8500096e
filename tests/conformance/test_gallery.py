"""Ten members of the gallery: models that others wrote, exported with proof, and wrong variants.

`make gallery` has all of them, and every step.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import toolkit
from benchmarks.gallery.faults import faults, one_reference, refused_by
from toolkit.sources.isolated_backend import open_files

GALLERY = Path(__file__).parents[2] / "benchmarks" / "gallery"
MEMBERS = {
    "torch_members.py": (
        *("Lstm", "Transformer", "WeightNorm", "SpectralNorm", "Norms", "TiedEmbedding"),
    ),
    "keras_members.py": ("KerasLstm", "KerasText", "KerasAttention", "KerasUNet"),
}
"""Gates that are reordered, masks, weights computed of weights, a weight that is read twice, tables
that are indexed, kernels that are folded."""


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file, names in MEMBERS.items() for name in names]
)
def test_the_right_graph_is_proved_and_every_wrong_one_is_refused(
    file: str, name: str, tmp_path: Path
) -> None:
    done = toolkit.export(f"{GALLERY / file}:{name}", to="onnx", out=tmp_path / "art")
    graph = onnx.load(done.artifact.path)
    passed = []
    variants = list(faults(graph))
    with one_reference(), open_files():
        for what, wrong in variants:
            onnx.save(wrong, tmp_path / "wrong.onnx")
            if not refused_by(tmp_path / "art" / "source", tmp_path / "wrong.onnx"):
                passed.append(what)
    assert len(variants) >= 2
    assert passed == []
