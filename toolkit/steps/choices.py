"""Which runtimes take part, and what cannot be said of those that do not."""

from __future__ import annotations

from collections.abc import Sequence

from runtimes import ACCEPTS, FOR_CUDA, ON_CUDA, ON_REQUEST, RUNTIMES
from toolkit.core.artifact import Artifact
from toolkit.core.errors import ToolkitError, UnavailableError, UsageError, unknown_name
from toolkit.core.session import Availability
from toolkit.measuring.client import WorkerProcess
from toolkit.steps.sources import absent_parent

DEVICES = ("cpu", "cuda")
PROBE_TIMEOUT_S = 120


def known_runtimes(
    asked: Sequence[str] | None, forms: Sequence[Artifact], device: str = "cpu"
) -> list[str]:
    """The runtimes asked for, on `device`; or all on it that are deployed and may open one of the
    forms.

    Raises UnknownNameError for a name that is none, UsageError for a runtime that is not for the
    device, UnavailableError where none opens any form.
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
    """The runtime that does on `device` what the named one does on the CPU."""
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
    """The error for a model of which nothing is there but forms that no runtime opens there."""
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
    """A warning where the rows are of other forms, since this one is for a GPU; None where a third
    party may open it, or where another runtime was chosen of those that do."""
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
    """Warnings of what these runtimes do not measure of it."""
    return [remark for remark in (absent_parent(artifact), unopened(artifact, runtimes)) if remark]


def missing_gpu(runtime: str) -> str | None:
    """Why a runtime for GPUs cannot run here; None where it can, and for all others, whose want is
    an error."""
    if runtime not in FOR_CUDA:
        return None
    found = probe(runtime)
    return None if found.ok else f"{runtime} cannot run here ({(found.reason or '').rstrip('.')})"


def probe(runtime: str) -> Availability:
    """Whether a runtime can be used here, asked in a process of its own, so that one that crashes
    costs one answer."""
    try:
        with WorkerProcess(threads=1, timeout_s=PROBE_TIMEOUT_S) as worker:
            return worker.probe(runtime)
    except ToolkitError as error:
        return Availability(ok=False, reason=error.problem, hint=error.hint)
