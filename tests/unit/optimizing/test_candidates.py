"""What competes."""

from __future__ import annotations

import pytest

from toolkit.core.artifact import Format
from toolkit.core.errors import UnknownNameError, UsageError
from toolkit.optimizing.candidates import (
    HINT,
    PRECISIONS,
    baseline,
    combined,
    compiled,
    openers,
    parse_allowed,
    variants,
)
from toolkit.optimizing.programs import PROGRAMS, REQUIREMENTS
from toolkit.steps.reference import REFERENCES

ALL = frozenset(PRECISIONS)


def test_only_what_is_allowed_opens() -> None:
    for allowed in (frozenset[str](), frozenset({"int8"}), frozenset({"bf16"}), ALL):
        found = openers(Format.CHECKPOINT, 2, allowed, "size")
        precisions = {one.precision for one in found}
        assert precisions == {"float32"} | {PRECISIONS[name] for name in allowed}


def test_float16_saves_bytes_alone() -> None:
    assert "float16" not in {one.precision for one in openers(Format.CHECKPOINT, 2, ALL, "latency")}


@pytest.mark.parametrize("format", list(Format))
def test_each_source_has_a_baseline_or_is_refused(format: Format) -> None:
    if format not in REFERENCES or format in (Format.AOTINDUCTOR, Format.LITERT):
        with pytest.raises(UsageError, match="no other form"):
            baseline(format, 2)
        return
    base = baseline(format, 2)
    assert base.exact
    assert base.form.target is None


def test_names_tell_candidates_apart() -> None:
    found = openers(Format.CHECKPOINT, 2, ALL, "size") + compiled(Format.CHECKPOINT, 2)
    found += [v for one in found for v in variants(one, 8)]
    assert len({one.name for one in found}) == len(found)
    assert all(one.runtime in PROGRAMS and one.runtime in REQUIREMENTS for one in found)


def test_a_variant_changes_one_thing_and_is_less_plain() -> None:
    for one in openers(Format.ONNX, 2, ALL, "latency"):
        for changed in variants(one, 8):
            differing = [
                changed.form != one.form,
                changed.threads != one.threads,
                changed.tuning != one.tuning,
            ]
            assert sum(differing) == 1
            assert changed.runtime == one.runtime
            assert HINT in changed.tuning or changed.effort(2) == one.effort(2) + 1


def test_what_helped_is_combined() -> None:
    origin = openers(Format.ONNX, 2, frozenset(), "latency")[0]
    changed = variants(origin, 8)
    both = combined(origin, changed)
    assert both.form.batch == 8
    assert both.threads == 1
    assert dict(both.tuning) == {k: v for one in changed for k, v in one.tuning.items()}
    assert combined(origin, []) == origin


def test_options_leave_accuracy_alone_but_the_precision() -> None:
    for one in openers(Format.ONNX, 2, ALL, "latency"):
        for changed in variants(one, 8):
            same = changed.tuning.get(HINT) == one.tuning.get(HINT)
            assert (changed.arithmetic == one.arithmetic) == same


def test_forms_are_made_one_of_another() -> None:
    for one in openers(Format.ONNX, 2, ALL, "latency"):
        for form in [one.form, *(v.form for v in variants(one, 8))]:
            seen = [form]
            while (parent := seen[-1].parent) is not None:
                assert parent not in seen
                seen.append(parent)
            assert seen[-1].preset is None
            assert seen[-1].batch is None


def test_unknown_precisions_are_told() -> None:
    with pytest.raises(UnknownNameError, match="bf16"):
        parse_allowed(["bf8"])
