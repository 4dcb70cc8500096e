"""Find the fastest form of a model on this machine that is still good enough."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from toolkit.core.errors import UnavailableError, UsageError, unknown_name
from toolkit.core.progress import Progress, Silent
from toolkit.measuring.environment import session_options
from toolkit.optimizing.accuracy import Judge, too_few
from toolkit.optimizing.candidates import PRECISIONS, baseline, compiled, openers, parse_allowed
from toolkit.optimizing.forms import CalibrationData, Workshop
from toolkit.optimizing.rounds import OBJECTIVES, Track
from toolkit.optimizing.search import FORMS, ROUNDS, VERDICTS, Optimized, Search
from toolkit.parity.paired import MAX_DROP, check_max_drop
from toolkit.steps.choices import DEVICES, missing_gpu
from toolkit.steps.files import sharing_files
from toolkit.steps.inputs import InputRequest, InputSource, Rows, input_source, resolve_batches
from toolkit.steps.labelled import LabelledRows, holds_inputs, load_labelled
from toolkit.steps.sources import candidates as forms_of
from toolkit.steps.sources import open_artifact


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
    """Searches among forms, runtimes and their options for the one that is best at `batch` by
    `objective`, a name of OBJECTIVES, and writes it as the bundle `out/bundle`.

    With `exact`, only forms compete whose outputs are the model's within the tolerance of float32.
    Otherwise forms of the precisions of `allow` do as well, if they are shown to lose at most
    `max_drop` percentage points of accuracy (per cent of the mean squared error, of a model that
    gives values) on all test rows of `data`, a data set or file, by default the model's own; those
    of eight bits are calibrated on its training rows, or on `calibration_data`. `inputs` are what
    is measured on where that is not these rows. `device` is cpu, or cuda: there, the runtimes for
    an NVIDIA GPU compete, those of them that can run here.

    Every form is made with proof, every float32 row held to the model's outputs before it is timed.
    One candidate a runtime and precision is measured first, briefly, beside the model itself; then
    those that come near the best, with options changed; then the best of them once more, longer,
    in several processes. What stands in `out` already is not measured again, so that a search that
    was broken off goes on. `budget_s` is that of this call: when it is spent, the choice is made
    of what is known.

    Raises UsageError where `out` holds another search or the rows cannot tell what is asked,
    UnavailableError without the GPU that is asked for, CheckFailedError where no candidate is
    right, and what `export` raises for the source.
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
        workshop=Workshop(
            given=given,
            path=Path(source),
            directory=place / FORMS,
            request=request,
            max_drop=max_drop,
            batch=size,
            data=calibration,
            progress=listener,
        ),
        track=Track(
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
    """The precisions that the rows can show to be accurate enough, and why not the others."""
    if rows is None or not asked:
        return frozenset(), []
    if (reason := too_few(rows, max_drop)) is not None:
        return frozenset(), [reason]
    if "int8" in asked and calibration_data is None and holds_inputs(data):
        remark = f"int8 is left out: {data} has no training rows to calibrate on. Give"
        return asked - {"int8"}, [f"{remark} --calibration-data."]
    return asked, []
