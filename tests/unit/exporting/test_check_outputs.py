"""Outputs that a runtime computed in TF32 are checked with the bounds of TF32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from models import FAMILIES, builder
from models.initial import fresh_weights
from toolkit.core.artifact import Artifact, Checkpoint
from toolkit.core.progress import Silent
from toolkit.core.specs import Feeds, Outputs
from toolkit.exporting import check_outputs
from toolkit.sources.inputs import InputRequest


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    spec = FAMILIES.create("mlp").spec("torch")
    maker = builder(spec, "torch")
    shapes = {name: array.shape for name, array in maker.weights(maker.build(spec)).items()}
    return Checkpoint.save(
        tmp_path_factory.mktemp("mlp"),
        spec=spec,
        weights=fresh_weights(shapes, 0),
        seed=0,
        epoch=0,
        metrics={},
        training={},
    ).artifact()


def _off(outputs: Outputs, share: float) -> Outputs:
    """Each output apart from itself by a share of its largest value."""
    return {
        name: array + np.float32(share * np.abs(array).max()) for name, array in outputs.items()
    }


@pytest.mark.parametrize(
    ("operations", "sets", "batches"),
    [(None, 4, (1, 3, 64)), (10**6, 4, (1, 3, 64)), (5 * 10**7, 2, (1, 3, 16)),
     (10**8, 1, (1, 3, 8)), (10**10, 1, (1, 2))],
)  # fmt: skip
def test_the_more_operations_a_row_takes_the_fewer_are_tried(
    operations: int | None, sets: int, batches: tuple[int, ...]
) -> None:
    assert check_outputs._plan(operations) == (sets, batches)


@pytest.mark.parametrize(
    ("ran", "off", "passes", "bounds"),
    [
        ("tf32", 2.0**-12, True, "tf32"),
        ("tf32", 2.0**-3, False, "tf32"),
        ("float32", 2.0**-12, False, "float32"),
        ("bfloat16", 2.0**-12, False, "float32"),
        (None, 2.0**-12, False, "float32"),
    ],
)
def test_the_bounds_are_those_of_what_ran(
    artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    ran: str | None,
    off: float,
    passes: bool,
    bounds: str,
) -> None:
    def rounded(
        runtime: str, artifact: Artifact, sets: Sequence[Sequence[Feeds]]
    ) -> tuple[list[list[Outputs]], str | None]:
        found, told = own("torch", artifact, sets)
        assert told is None
        return [[_off(one, off) for one in case] for case in found], ran

    own = check_outputs.outputs_and_precision_of
    monkeypatch.setattr(check_outputs, "outputs_and_precision_of", rounded)
    notes = Notes()
    found = check_outputs.compare(artifact, artifact, "rt", InputRequest(), progress=notes)
    assert found.passed is passes
    assert found.precision == found.to_json()["precision"] == bounds
    assert any("rt multiplied float32 as TF32" in note for note in notes.notes) is (
        bounds == "tf32"
    )
