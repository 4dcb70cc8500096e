"""Find the fastest variant of a model on this machine that is still accurate enough."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from toolkit.core.errors import UnavailableError, UsageError, unknown_name
from toolkit.core.progress import Progress, Silent
from toolkit.measuring.machine.environment import session_options
from toolkit.optimizing.accuracy import Judge, too_few
from toolkit.optimizing.candidates import PRECISIONS, baseline, compiled, openers, parse_allowed
from toolkit.optimizing.forms import CalibrationData, VariantMaker
from toolkit.optimizing.rounds import OBJECTIVES, RoundRunner
from toolkit.optimizing.search import FORMS, ROUNDS, VERDICTS, Optimized, Search
from toolkit.parity.paired import MAX_DROP, check_max_drop
from toolkit.sources.inputs import InputRequest, InputSource, Rows, input_source, resolve_batches
from toolkit.sources.isolated_backend import sharing_files
from toolkit.sources.labelled_data import LabelledRows, holds_inputs, load_labelled
from toolkit.sources.resolve import candidates as forms_of
from toolkit.sources.resolve import open_artifact
from toolkit.sources.runtime_selection import DEVICES, missing_gpu


@sharing_files
def optimize(
    source: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    data: str | None = None,
    data_settings: Mapping[str, object] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    calibration_data: str | None = None,
    exact: bool = False,
    max_drop: float = MAX_DROP,
    allow: Collection[str] = tuple(PRECISIONS),
    objective: str = "latency",
    batch: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    budget_s: float = 300.0,
    inputs: InputRequest | None = None,
    timeout_s: float = 300.0,
    progress: Progress | None = None,
) -> Optimized:
    """Search variants, runtimes and options for the best candidate, and write it as `out/bundle`.

    The best candidate has the smallest value of `objective`, a name of OBJECTIVES, at `batch`.

    With `exact`, only variants are candidates whose outputs are the model's within the tolerance of
    float32. Otherwise, variants in the precisions of `allow` are candidates too. They must be shown
    to lose at most `max_drop` percentage points of accuracy (per cent of the mean squared error for
    a regression model) on all test samples of `data`, a data set or file, by default the model's
    own. INT8 variants are calibrated on its training samples, or on `calibration_data`. Latency is
    measured on the test samples, or on `inputs` if given. `device` is cpu or cuda; with cuda, the
    candidates use the runtimes for NVIDIA GPUs that can run here.

    Every variant is verified when it is made, and the outputs of every float32 candidate are
    checked against the model's before it is timed. The search first measures one candidate per
    runtime and precision briefly, in turn with the model itself. It then changes options of the
    candidates near the best, and measures the best again, for longer and in several processes.
    Results in `out` are reused, so that an interrupted search is resumed. `budget_s` limits this
    call, in seconds: when it is spent, the choice is made from the results so far.

    Raises UsageError for invalid arguments, for an `out` that contains another search, and for test
    samples that are missing, have no labels or are all of one class; UnavailableError if the
    requested GPU is missing; CheckFailedError if no candidate is right; and the errors of `export`
    for the source.
    """
    if objective not in OBJECTIVES:
        raise unknown_name("objective", objective, OBJECTIVES)
    if not 0 < budget_s < math.inf:
        raise UsageError(
            f"Got a budget of {budget_s:g} s, expected more than 0.", hint="Give, say, 5m."
        )
    if device not in DEVICES:
        raise unknown_name("device", device, DEVICES)
    check_max_drop(max_drop)
    asked = frozenset[str]() if exact else parse_allowed(allow)
    given, request = open_artifact(source), inputs or InputRequest()
    (size, *_) = resolve_batches(given, None if batch is None else [batch], request)
    options, listener, place = session_options(threads), progress or Silent(), Path(out)
    base = baseline(given.format, options.threads, device)
    if (missing := missing_gpu(base.runtime)) is not None:
        raise UnavailableError(f"{missing}.", hint="`toolkit doctor` says what is missing.")
    name, settings = data or given.model.data, dict(data_settings or {})
    directory = None if data_dir is None else Path(data_dir)
    rows: LabelledRows | None = None
    feeding: InputSource | None = None
    if not exact:
        rows = load_labelled(given, name, settings, directory, listener)
        if request == InputRequest():
            feeding = Rows(given.signature, rows.feeds, rows.description)
    elif data is not None and holds_inputs(data):
        request = replace(request, file=Path(data))
    elif data is not None:
        request = replace(request, data=data, data_settings=settings, data_dir=directory)
    feeding = feeding or input_source(given, request)
    allowed, remarks = _able(asked, rows, max_drop, name, calibration_data)
    entrants = openers(given.format, options.threads, allowed, objective, device)
    absent = {name: missing_gpu(name) for name in dict.fromkeys(one.runtime for one in entrants)}
    remarks += filter(None, absent.values())
    calibration = CalibrationData(
        name=calibration_data or name or "",
        settings=settings if calibration_data is None else {},
        directory=directory,
    )
    search = Search(
        given=given,
        place=place,
        base=base,
        entrants=[one for one in entrants if absent[one.runtime] is None],
        late=compiled(given.format, options.threads, device),
        batch=size,
        objective=objective,
        options=options,
        max_drop=None if exact else max_drop,
        deadline=time.monotonic() + budget_s,
        budget_s=budget_s,
        variant_maker=VariantMaker(
            given=given,
            path=Path(source),
            directory=place / FORMS,
            request=request,
            max_drop=max_drop,
            batch=size,
            data=calibration,
            progress=listener,
        ),
        round_runner=RoundRunner(
            directory=place / ROUNDS,
            feeding=feeding,
            batch=size,
            threads=options.threads,
            timeout_s=timeout_s,
            progress=listener,
        ),
        judge=None
        if rows is None
        else Judge(
            given=given,
            forms=forms_of(given),
            rows=rows,
            max_drop=max_drop,
            threads=options.threads,
            timeout_s=timeout_s,
            directory=place / VERDICTS,
            progress=listener,
        ),
        progress=listener,
        remarks=remarks,
    )
    return search.run()


def _able(
    asked: frozenset[str],
    rows: LabelledRows | None,
    max_drop: float,
    data: str | None,
    calibration_data: str | None,
) -> tuple[frozenset[str], list[str]]:
    """Return the precisions whose accuracy the samples can confirm, and remarks on the others."""
    if rows is None or not asked:
        return frozenset(), []
    if (reason := too_few(rows, max_drop)) is not None:
        return frozenset(), [reason]
    if "int8" in asked and calibration_data is None and holds_inputs(data):
        remark = f"int8 is left out: {data} has no training rows to calibrate on. Give"
        return asked - {"int8"}, [f"{remark} --calibration-data."]
    return asked, []
