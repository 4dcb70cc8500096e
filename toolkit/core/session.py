"""Interfaces that every runtime implements: Runtime and Session."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn, Self, final

import numpy as np

from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import (
    SessionError,
    ToolkitError,
    UsageError,
    first_words,
    unknown_name,
)
from toolkit.core.specs import Feeds, Outputs, Signature

MOST_THREADS = 1024


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Whether a runtime can be used on this machine; if not, the reason and a hint."""

    ok: bool
    version: str | None = None
    reason: str | None = None
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Options for opening a session. `optimize=False` runs the graph without optimisations.

    `tuning` has the options of the specific runtime, as strings. Raises UsageError unless `threads`
    is from 1 to MOST_THREADS.
    """

    threads: int = 1
    optimize: bool = True
    tuning: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(
                f"Got {self.threads} threads, expected at least 1.",
                hint="Give --threads 1 or more.",
            )

    def require_optimize(self, runtime: str) -> None:
        """Raise UsageError if `optimize` is False, for a runtime that always optimises."""
        if not self.optimize:
            raise UsageError(
                f"{runtime} was asked to run the graph without optimisation, which it cannot.",
                hint="Open the session with optimize=True, or choose torch or onnxruntime.",
            )

    def require_known(self, runtime: str, known: Iterable[str]) -> None:
        """Raise UnknownNameError if `tuning` has an option that the runtime does not know."""
        names = sorted(known)
        for name in self.tuning:
            if name not in names:
                raise unknown_name(f"option of {runtime}", name, names)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Precision, device and version with which a session ran, as reported by the runtime.

    `precision` is the dtype of the arithmetic and `device` is where it ran: "mixed" if layers
    differ, "none" if there is no arithmetic. `details` has what is specific to the runtime, such as
    nodes with their operators and execution providers, or compiled graphs.
    """

    runtime: str
    version: str
    device: str
    precision: str
    threads: int
    details: Mapping[str, Any] = field(default_factory=dict)


class Session(ABC):
    """Model opened by a runtime on one device.

    To run on inputs that are already on the device, call `upload` once, then `forward` and
    `synchronize` for each pass. `run` copies inputs and outputs as well, and waits for the device
    once. Arrays given to `upload` may be read in place until the next upload, so the caller must
    not modify them. Arrays returned by `download` belong to the caller.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._closed = False
        self._accepted: tuple[tuple[Any, ...], ...] | None = None
        self._dims: dict[str, int] = {}

    @final
    def upload(self, feeds: Feeds) -> None:
        """Copy host arrays to the device's buffers; a NumPy scalar counts as a 0-d array.

        Raises FeedError for a wrong name, dtype or shape, SessionError if the session is closed.
        """
        if self._closed:
            raise SessionError(
                "The session is closed, and inputs were uploaded.", hint="Open a new session."
            )
        # A full check takes microseconds: skip it if names, shapes and dtypes are the same.
        form = tuple(
            (k, getattr(v, "shape", None), getattr(v, "dtype", None)) for k, v in feeds.items()
        )
        if form != self._accepted:
            self._accepted = None
            given: Mapping[str, Any] = feeds
            scalars = [name for name, value in given.items() if isinstance(value, np.generic)]
            feeds = {**feeds, **{name: np.asarray(given[name]) for name in scalars}}
            self._dims = self.signature.check(feeds)
            self._prepare(self._dims)
            # A scalar looks like a 0-d array, and must be converted at the next upload too.
            self._accepted = (*form, ()) if scalars else form
        self._upload(feeds)

    @abstractmethod
    def _prepare(self, dims: Mapping[str, int]) -> None:
        """Allocate buffers for named axes of these extents, before an upload of other shapes."""

    @abstractmethod
    def _upload(self, feeds: Feeds) -> None:
        """Copy checked arrays, which may be non-contiguous, to the device."""

    @abstractmethod
    def forward(self) -> None:
        """Enqueue one pass over the uploaded inputs; may return before it is complete."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all passes are complete."""

    @final
    def download(self) -> Outputs:
        """Wait for the last pass and return its outputs as new host arrays.

        Later passes do not overwrite them. Raises SessionError before the first upload and after
        `close`.
        """
        if self._closed or self._accepted is None:
            not_ready()
        return self._download()

    @abstractmethod
    def _download(self) -> Outputs:
        """Wait for the last pass and return its outputs as new arrays; inputs were uploaded."""

    @final
    def run(self, feeds: Feeds) -> Outputs:
        """Upload inputs, run one pass and return its outputs.

        Raises FeedError if the inputs do not fit the signature, and SessionError if the runtime
        fails.
        """
        try:
            self.upload(feeds)
            self.forward()
            return self.download()
        except ToolkitError:
            raise
        except Exception as error:
            raise SessionError(
                f"The runtime failed with {first_words(error)}",
                hint="See the documentation of the runtime; another one may run the model.",
            ) from error

    @final
    def provenance(self) -> Provenance:
        """Return the provenance of a pass over the inputs of the last upload.

        This may run additional passes, and take as much time and memory as opening the session
        again, so call it after all measurements. Raises SessionError before the first upload and
        after `close`.
        """
        if self._closed or self._accepted is None:
            not_ready()
        return self._provenance()

    @abstractmethod
    def _provenance(self) -> Provenance:
        """Return the provenance, as reported by the runtime."""

    @final
    def close(self) -> None:
        """Free all resources of the session. Idempotent."""
        if not self._closed:
            self._closed = True
            self._close()

    @abstractmethod
    def _close(self) -> None:
        """Free all resources of the session; called only once."""

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(self, *_: object) -> None:
        self.close()


class Runtime(ABC):
    """Stateless factory of sessions, instantiated without arguments.

    `accepts` are the formats that it opens. `computes` is False if its outputs are not those of the
    model (the null runtime). `device` is where it runs: "cpu" or "cuda".
    """

    name: ClassVar[str]
    accepts: ClassVar[frozenset[Format]]
    computes: ClassVar[bool] = True
    device: ClassVar[str] = "cpu"

    @abstractmethod
    def probe(self) -> Availability:
        """Return whether the runtime can be used on this machine. Never raises."""

    @abstractmethod
    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        """Open an artifact of one of the formats in `accepts`.

        Raises SourceError if the runtime cannot read it.
        """


def open_session(runtime: Runtime, artifact: Artifact, options: SessionOptions) -> Session:
    """Open a session with `runtime.open`.

    Raises the ToolkitErrors of `runtime.open`, and SessionError for any other exception.
    """
    try:
        return runtime.open(artifact, options)
    except ToolkitError:
        raise
    except Exception as error:
        raise SessionError(
            f"{runtime.name} could not open {artifact.path}: {first_words(error)}",
            hint="See the documentation of the runtime; another one may run the model.",
        ) from error


def parse_value(name: str, text: str, kind: type) -> Any:
    """Convert an option's text to bool, int, float or str. Raises UsageError if it cannot."""
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return kind(text) if kind in (int, float) else text
    except (KeyError, ValueError):
        raise UsageError(
            f"Got {text!r} for option {name}, expected a value of type {kind.__name__}.",
            hint="Give true or false for a bool, a number for an int or float.",
        ) from None


def not_ready() -> NoReturn:
    """Raise SessionError; sessions call this instead of a pass without inputs or once closed."""
    raise SessionError(
        "A pass was asked for, but no inputs are uploaded or the session is closed.",
        hint="Call upload(feeds) on an open session first.",
    )


def host_copy(array: np.ndarray) -> np.ndarray:
    """Return a C-contiguous copy."""
    return np.array(array, order="C", copy=True)
