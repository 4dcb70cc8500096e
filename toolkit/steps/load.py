"""Open a session in this process."""

from __future__ import annotations

import os

from runtimes import RUNTIMES
from toolkit.core.errors import UnavailableError, UsageError
from toolkit.core.session import Session
from toolkit.measuring.environment import session_options
from toolkit.steps.sources import candidates, open_artifact


def load(
    artifact: str | os.PathLike[str], runtime: str = "onnxruntime", *, threads: int | None = None
) -> Session:
    """Opens `artifact` with `runtime`: `toolkit.load(path).run({"input": array})`.

    A context manager. The runtimes of a framework open the checkpoint that the artifact was made
    from. Raises SourceError, IntegrityError, UnknownNameError, UnavailableError, UsageError.
    """
    source = open_artifact(artifact)
    plugin = RUNTIMES.create(runtime)
    availability = plugin.probe()
    if not availability.ok:
        raise UnavailableError(
            f"{runtime} cannot be used here: {availability.reason}.",
            hint=availability.hint or "See `toolkit doctor`.",
        )
    for candidate in candidates(source):
        if candidate.format in plugin.accepts:
            return plugin.open(candidate, session_options(threads))
    raise UsageError(
        f"{runtime} takes {' or '.join(sorted(plugin.accepts))}, and {source.path} is "
        f"{source.format}.",
        hint="Choose another runtime; see `toolkit doctor`.",
    )
