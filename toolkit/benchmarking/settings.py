"""Requested settings for measuring rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from toolkit.core.codec import encode
from toolkit.core.documents import Json
from toolkit.core.errors import UsageError, unknown_name
from toolkit.core.measurement import Scope
from toolkit.core.session import SessionOptions
from toolkit.measuring.load_test.scenarios import Traffic
from toolkit.measuring.machine.environment import session_options
from toolkit.measuring.timing.engine import Procedure
from toolkit.measuring.workers.client import check_timeout

SCOPES = (Scope.FORWARD, Scope.END_TO_END)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that all rows of a run share, such as the scopes to measure in or the load test.

    `allow_fallback` accepts a row that ran in another precision or on another device. `tolerance`
    replaces the bounds of the precision: the largest allowed difference from the reference outputs,
    relative to their largest magnitude.
    """

    scopes: Sequence[Scope]
    traffic: Traffic | None
    options: SessionOptions
    cpus: frozenset[int] | None
    tuning: Mapping[str, Mapping[str, str]]
    procedure: Procedure
    timeout_s: float
    allow_fallback: bool = False
    tolerance: float | None = None

    @classmethod
    def parse(
        cls,
        *,
        scopes: Sequence[str] | None,
        threads: int | None,
        cpus: Collection[int] | None,
        tuning: Mapping[str, Mapping[str, str]] | None,
        procedure: Procedure | None,
        timeout_s: float,
        allow_fallback: bool = False,
        tolerance: float | None = None,
        traffic: Traffic | None = None,
    ) -> Self:
        """Check the options, and return them as settings.

        Without `scopes` and `traffic`, SCOPES are measured. Raises UnknownNameError and UsageError
        for invalid options.
        """
        check_timeout(timeout_s)
        if tolerance is not None and not 0 < tolerance < 1:
            raise UsageError(
                f"Got --tolerance {tolerance:g}, expected a number between 0 and 1: the largest "
                "difference to the reference, as a part of its largest magnitude.",
                hint="Give, for example, --tolerance 1e-3.",
            )
        pinned = None if cpus is None else frozenset(cpus)
        chosen = procedure or Procedure()
        if traffic is not None:
            traffic.check(chosen)
            if chosen.processes is not None:
                raise UsageError(
                    "Got --processes together with --scenario.",
                    hint="Leave out --processes: each window of a scenario has its own process.",
                )
        return cls(
            scopes=_parse_scopes(scopes, traffic),
            traffic=traffic,
            options=session_options(threads, pinned),
            cpus=pinned,
            tuning=tuning or {},
            procedure=chosen,
            timeout_s=timeout_s,
            allow_fallback=allow_fallback,
            tolerance=tolerance,
        )

    def check_runtimes(self, names: Sequence[str]) -> None:
        """Raise UnknownNameError for tuning of a runtime that is not measured."""
        for name in self.tuning:
            if name not in names:
                raise unknown_name("runtime in this run", name, names)

    def of(self, runtime: str) -> SessionOptions:
        return replace(self.options, tuning=self.tuning.get(runtime, {}))

    @property
    def clients(self) -> int:
        """Number of sessions of a row, each with its own threads."""
        return 1 if self.traffic is None else self.traffic.concurrency

    def to_json(self) -> Json:
        return {
            "scopes": list(self.scopes),
            "traffic": self.traffic and self.traffic.to_json(),
            "options": encode(self.options),
            "cpus": sorted(self.cpus) if self.cpus else None,
            "tuning": {name: dict(values) for name, values in self.tuning.items()},
            "procedure": self.procedure.to_json(),
            "timeout_s": self.timeout_s,
            "allow_fallback": self.allow_fallback,
            "tolerance": self.tolerance,
        }


def _parse_scopes(scopes: Sequence[str] | None, traffic: Traffic | None) -> tuple[Scope, ...]:
    if scopes is None:
        return SCOPES if traffic is None else ()
    if traffic is not None:
        raise UsageError(
            "Got a scenario together with scopes.",
            hint="A scenario is a separate measurement, end to end: leave out --scope.",
        )
    if not scopes:
        raise UsageError("Got no scopes.", hint="Give forward, end_to_end or open.")
    known = [scope.value for scope in (*SCOPES, Scope.OPEN)]
    for scope in scopes:
        if scope not in known:
            raise unknown_name("scope", scope, known)
    return tuple(Scope(scope) for scope in dict.fromkeys(scopes))
