"""Choose and probe runtimes, and warn of variants that none of them opens."""

from __future__ import annotations

from collections.abc import Sequence

from runtimes import ACCEPTS, FOR_CUDA, ON_CUDA, ON_REQUEST, RUNTIMES
from toolkit.core.artifact import Artifact
from toolkit.core.errors import ToolkitError, UnavailableError, UsageError, unknown_name
from toolkit.core.session import Availability
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.sources.resolve import absent_parent

DEVICES = ("cpu", "cuda")
PROBE_TIMEOUT_S = 120


def known_runtimes(
    asked: Sequence[str] | None, forms: Sequence[Artifact], device: str = "cpu"
) -> list[str]:
    """Return the requested runtimes on `device`, by default all that may open one of the variants.

    The default leaves out runtimes that nobody deploys (ON_REQUEST). On cuda, a CPU runtime stands
    for its GPU counterpart. Raises UnknownNameError for an unknown runtime or device, UsageError
    for an empty list or a runtime that does not run on the device, and UnavailableError if no
    runtime is requested and none opens any variant.
    """
    if device not in DEVICES:
        raise unknown_name("device", device, DEVICES)
    if isinstance(asked, str) or (asked is not None and not asked):
        raise UsageError(
            f"Got {asked!r} for the runtimes, expected a list of names.",
            hint="Give, for example, ['torch', 'onnxruntime'], or None for all.",
        )
    if asked is None:
        formats = {form.format for form in forms}
        names = [name for name in RUNTIMES.names() if name not in ON_REQUEST]
        names = [name for name in names if (name in FOR_CUDA) is (device == "cuda")]
        found = [name for name in names if name not in ACCEPTS or ACCEPTS[name] & formats]
        if not found:
            raise nothing_runs(forms, device)
        return found
    for name in asked:
        RUNTIMES.entry(name)
    return [_on(device, name) for name in asked]


def _on(device: str, name: str) -> str:
    """Return the counterpart on `device` of a runtime. Raises UsageError if there is none."""
    if device == "cpu" or name in FOR_CUDA or name not in ACCEPTS:
        return name
    if name not in ON_CUDA:
        raise UsageError(
            f"{name} does not run on {device}.",
            hint=f"Of those named for the CPU, {', '.join(ON_CUDA)} do; or name "
            f"{', '.join(sorted(FOR_CUDA - set(ON_CUDA.values())))}.",
        )
    return ON_CUDA[name]


def nothing_runs(forms: Sequence[Artifact], device: str = "cpu") -> UnavailableError:
    """Return the error for a model none of whose variants a runtime on `device` opens."""
    first = forms[0]
    able = [name for name in ACCEPTS if (name in FOR_CUDA) is (device == "cuda")]
    runnable = sorted({format.value for name in able for format in ACCEPTS[name]})
    places = " and ".join(str(first.place_of(parent)) for parent in first.parents)
    origin = f"; it was made from {places}" if places else ""
    return UnavailableError(
        f"No runtime here opens {first.path}, which is {first.format}, on the {device}.",
        hint=f"Name a form that one opens, {', '.join(runnable)}{origin}.",
    )


def unopened(artifact: Artifact, runtimes: Sequence[str]) -> str | None:
    """Return a warning if none of `runtimes` opens an artifact that only GPU runtimes open.

    The rows are then of variants that it was made from. Return None for any other artifact, and if
    a third-party runtime, which may open it, is among `runtimes`.
    """
    if any(name not in ACCEPTS or artifact.format in ACCEPTS[name] for name in runtimes):
        return None
    able = {name for name, formats in ACCEPTS.items() if artifact.format in formats}
    if not able <= FOR_CUDA:
        return None
    return (
        f"{artifact.path} itself is not run, as none of these runtimes opens {artifact.format}: "
        "every row is of a form that it was made from. On a machine with a GPU, give "
        f"--runtime {','.join(sorted(able))} or --device cuda."
    )


def remarks_on(artifact: Artifact, runtimes: Sequence[str]) -> list[str]:
    """Return warnings of a missing checkpoint, and of an artifact that no runtime here opens."""
    return [remark for remark in (absent_parent(artifact), unopened(artifact, runtimes)) if remark]


def missing_gpu(runtime: str) -> str | None:
    """Return why a GPU runtime cannot run here, or None if it can.

    Also return None for a CPU runtime, because it is an error if one is missing.
    """
    if runtime not in FOR_CUDA:
        return None
    found = probe(runtime)
    return None if found.ok else f"{runtime} cannot run here ({(found.reason or '').rstrip('.')})"


def probe(runtime: str) -> Availability:
    """Return whether a runtime can be used here.

    It is probed in its own process, so that a crash affects no other runtime.
    """
    try:
        with WorkerProcess(threads=1, timeout_s=PROBE_TIMEOUT_S) as worker:
            return worker.probe(runtime)
    except ToolkitError as error:
        return Availability(ok=False, reason=error.problem, hint=error.hint)
