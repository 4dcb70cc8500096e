"""A sample of ONNX's own backend tests; benchmarks/backend_tests.py runs all of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from tests.backend_cases import PASSES, REFUSED, RIGHT, RUNTIMES, Case, bare, cases, of_pass, ours
from toolkit.sources.isolated_backend import open_files

DRAWN = 24
NAMED = (
    "test_batchnorm_epsilon",
    "test_cast_FLOAT_to_BFLOAT16",
    "test_cast_FLOAT_to_FLOAT8E4M3FN",
    "test_clip_default_min",
    "test_flexattention_score_mod",
    "test_identity_sequence",
    "test_if",
    "test_loop11",
    "test_optional_get_element_tensor",
    "test_quantizelinear_int4",
    "test_reduce_sum_empty_axes_input_noop",
    "test_reduce_sum_empty_set",
    "test_scan_sum",
    "test_sequence_insert_at_back",
    "test_sequence_model8",
    "test_split_to_sequence_1",
    "test_string_concat",
    "test_top_k",
)
"""Cases of dtypes, bodies and types that have needed care."""


@pytest.fixture(scope="module")
def sample() -> list[Case]:
    """The named cases, and some that are drawn."""
    everything = {case.name: case for case in cases() if case.kind != "real"}
    rest = sorted(everything.keys() - set(NAMED))
    chosen = (*NAMED, *random.Random(0).sample(rest, DRAWN))
    return [everything[name] for name in chosen]


@pytest.fixture(scope="module", autouse=True)
def files() -> Iterator[None]:
    with open_files():
        yield


def saved(case: Case, place: Path) -> Path:
    onnx.save(case.model, place / "model.onnx")
    return place / "model.onnx"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_the_bare_runtime_computes_is_right_here(
    sample: list[Case], runtime: str, tmp_path: Path
) -> None:
    bad = []
    for case in sample:
        path = saved(case, tmp_path)
        if bare(case, path, runtime) == RIGHT:
            told = ours(case, path, runtime)
            if told != RIGHT and not (case.other_types and told.startswith(REFUSED)):
                bad.append(f"{case.name}: {told}")
    assert bad == []


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_gives_no_wrong_value(sample: list[Case], name: str, tmp_path: Path) -> None:
    found = {case.name: of_pass(case, saved(case, tmp_path), name) for case in sample}
    wrong = [f"{k}: {told}" for k, told in found.items() if not told.startswith((RIGHT, REFUSED))]
    assert wrong == []
    assert RIGHT in found.values()
