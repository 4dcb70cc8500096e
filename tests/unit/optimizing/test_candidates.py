"""What competes."""

from __future__ import annotations

import pytest

from runtimes import ACCEPTS, FOR_CUDA
from toolkit.core.artifact import Format
from toolkit.core.errors import UnknownNameError, UsageError
from toolkit.optimizing.candidates import (
    HINT,
    PRECISIONS,
    TF32,
    Candidate,
    baseline,
    combined,
    compiled,
    openers,
    parse_allowed,
    variants,
)
from toolkit.optimizing.programs import PROGRAMS, REQUIREMENTS
from toolkit.sources.reference_runtime import REFERENCES

ALL = frozenset(PRECISIONS)


def test_only_what_is_allowed_opens() -> None:
    for allowed in (frozenset[str](), frozenset({"int8"}), frozenset({"bf16"}), ALL):
        found = openers(Format.CHECKPOINT, 2, allowed, "size", "cpu")
        precisions = {one.precision for one in found}
        wanted = {PRECISIONS[name] for name in allowed} - {TF32}  # which no processor has
        assert precisions == {"float32"} | wanted


def test_float16_saves_bytes_alone() -> None:
    assert "float16" not in {
        one.precision for one in openers(Format.CHECKPOINT, 2, ALL, "latency", "cpu")
    }


@pytest.mark.parametrize("format", list(Format))
def test_each_source_has_a_baseline_or_is_refused(format: Format) -> None:
    if format not in REFERENCES or format in (Format.AOTINDUCTOR, Format.LITERT):
        with pytest.raises(UsageError, match="no other form"):
            baseline(format, 2, "cpu")
        return
    base = baseline(format, 2, "cpu")
    assert base.exact
    assert base.form.target is None


def test_names_tell_candidates_apart() -> None:
    found = openers(Format.CHECKPOINT, 2, ALL, "size", "cpu") + compiled(
        Format.CHECKPOINT, 2, "cpu"
    )
    found += [v for one in found for v in variants(one, 8)]
    assert len({one.name for one in found}) == len(found)
    assert all(one.runtime in PROGRAMS and one.runtime in REQUIREMENTS for one in found)


def test_a_variant_changes_one_thing_and_is_less_plain() -> None:
    for one in openers(Format.ONNX, 2, ALL, "latency", "cpu"):
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
    origin = openers(Format.ONNX, 2, frozenset(), "latency", "cpu")[0]
    changed = variants(origin, 8)
    both = combined(origin, changed)
    assert both.form.batch == 8
    assert both.threads == 1
    assert dict(both.tuning) == {k: v for one in changed for k, v in one.tuning.items()}
    assert combined(origin, []) == origin


def test_options_leave_accuracy_alone_but_the_precision() -> None:
    for one in openers(Format.ONNX, 2, ALL, "latency", "cpu"):
        for changed in variants(one, 8):
            same = changed.tuning.get(HINT) == one.tuning.get(HINT)
            assert (changed.arithmetic == one.arithmetic) == same


def test_forms_are_made_one_of_another() -> None:
    for one in openers(Format.ONNX, 2, ALL, "latency", "cpu"):
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


def on_cuda(*allowed: str, format: Format = Format.CHECKPOINT) -> list[Candidate]:
    return openers(format, 2, frozenset(allowed), "latency", "cuda")


def test_on_a_gpu_its_runtimes_compete_in_what_is_allowed() -> None:
    for allowed in ((), ("int8",), ("fp16",), ("tf32",), tuple(PRECISIONS)):
        found = on_cuda(*allowed)
        assert {one.runtime for one in found} <= FOR_CUDA
        wanted = {PRECISIONS[name] for name in allowed} - {"bfloat16"}  # float16 is as fast
        assert {one.precision for one in found} == {"float32"} | wanted
        assert len({one.name for one in found}) == len(found)


def test_on_a_gpu_each_form_is_what_its_runtime_opens() -> None:
    for one in on_cuda(*PRECISIONS):
        assert one.form.target in ACCEPTS[one.runtime]
        assert one.runtime in PROGRAMS
        form = one.form
        while form.parent is not None:
            form = form.parent
        assert form.preset is None
        assert (one.form.preset is None) == (one.precision != "int8")


def test_on_a_gpu_neither_batch_nor_threads_are_varied() -> None:
    for one in on_cuda(*PRECISIONS):
        for changed in variants(one, 8):
            assert (changed.form, changed.threads) == (one.form, one.threads)
            assert changed.arithmetic == one.arithmetic
            assert changed.effort(2) == one.effort(2) + 1


@pytest.mark.parametrize("format", list(Format))
def test_what_no_runtime_for_a_gpu_opens_has_no_baseline_there(format: Format) -> None:
    opened = {Format.CHECKPOINT: "torch-cuda", Format.ONNX: "onnxruntime-cuda"}
    if format not in opened:
        with pytest.raises(UsageError, match="no runtime for a GPU"):
            baseline(format, 2, "cuda")
        return
    base = baseline(format, 2, "cuda")
    assert (base.runtime, base.exact) == (opened[format], True)
    assert compiled(format, 2, "cuda") == []


@pytest.mark.parametrize("runtime", PROGRAMS)
def test_each_program_is_python_and_names_what_it_takes(runtime: str) -> None:
    compile(PROGRAMS[runtime], runtime, "exec")
    package = REQUIREMENTS[runtime][0].partition("[")[0]
    assert f"import {package.removesuffix('-gpu').replace('-', '_')}" in PROGRAMS[runtime]
