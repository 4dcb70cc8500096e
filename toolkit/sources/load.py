"""Open a model for inference in the current process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from runtimes import RUNTIMES
from toolkit.core.artifact import Artifact
from toolkit.core.bundle import MODEL, Bundle, is_bundle
from toolkit.core.errors import UnavailableError, UsageError
from toolkit.core.session import Session, SessionOptions, open_session
from toolkit.measuring.machine.environment import session_options
from toolkit.sources.resolve import candidates, open_artifact


def load(
    artifact: str | os.PathLike[str], runtime: str | None = None, *, threads: int | None = None
) -> Session:
    """Open `artifact` with `runtime`, by default ONNX Runtime, and return the session.

    For example, `toolkit.load(path).run({"input": array})`. The session is a context manager. The
    runtimes of a framework open the checkpoint that the artifact was made from. A bundle opens with
    its own runtime, threads and options; to choose others, open the artifact in it. Raises
    SourceError, IntegrityError, UnknownNameError, UnavailableError, UsageError.
    """
    path = Path(artifact)
    if is_bundle(path):
        if runtime is not None or threads is not None:
            raise UsageError(
                f"Got a runtime or threads for the bundle {path}, which has its own.",
                hint=f"Leave them out, or open {path / MODEL}.",
            )
        bundle = Bundle.load(path)
        return _open([bundle.artifact], bundle.runtime, bundle.options)
    return _open(
        candidates(open_artifact(path)), runtime or "onnxruntime", session_options(threads)
    )


def _open(forms: Sequence[Artifact], runtime: str, options: SessionOptions) -> Session:
    plugin = RUNTIMES.create(runtime)
    availability = plugin.probe()
    if not availability.ok:
        raise UnavailableError(
            f"{runtime} cannot be used here: {availability.reason}.",
            hint=availability.hint or "See `toolkit doctor`.",
        )
    for form in forms:
        if form.format in plugin.accepts:
            return open_session(plugin, form, options)
    raise UsageError(
        f"{runtime} takes {' or '.join(sorted(plugin.accepts))}, and {forms[0].path} is "
        f"{forms[0].format}.",
        hint="Choose another runtime; see `toolkit doctor`.",
    )
