"""The two interfaces that every runtime implements."""

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
    """Whether a runtime can be used here; if not, why, and what to do about it."""

    ok: bool
    version: str | None = None
    reason: str | None = None
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """How to open a session. `optimize=False` asks for the graph as it is written.

    `tuning` holds options of the runtime's own, by its own names, as text.
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
        """Raises UsageError when the graph is asked for as written, which `runtime` cannot do."""
        if not self.optimize:
            raise UsageError(
                f"{runtime} was asked to run the graph without optimisation, which it cannot.",
                hint="Open the session with optimize=True, or choose torch or onnxruntime.",
            )

    def require_known(self, runtime: str, known: Iterable[str]) -> None:
        """Raises UnknownNameError for an option of the runtime's own that it does not have."""
        names = sorted(known)
        for name in self.tuning:
            if name not in names:
                raise unknown_name(f"option of {runtime}", name, names)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What really ran, as the runtime itself reports it.

    `precision` is the dtype in which the arithmetic ran and `device` where: "mixed" when layers
    differ, "none" when there is none. `details` holds what only this runtime knows: nodes with
    their operators and providers, compiled graphs.
    """

    runtime: str
    version: str
    device: str
    precision: str
    threads: int
    details: Mapping[str, Any] = field(default_factory=dict)


class Session(ABC):
    """A model opened by a runtime, on one device, ready to run.

    `forward` on device-resident inputs is `upload` once, then `forward(); synchronize()`; the
    whole way of the data is `run`, in which a device is waited for once. Inputs handed to `upload`
    may be read in place until the next upload, so they must not be altered before; outputs of
    `download` are the caller's own.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._closed = False
        self._accepted: tuple[tuple[Any, ...], ...] | None = None
        self._dims: dict[str, int] = {}

    @final
    def upload(self, feeds: Feeds) -> None:
        """Moves host arrays to the device's buffers. A NumPy scalar is an array without axes.

        Raises FeedError for a wrong name, dtype or shape, SessionError when closed.
        """
        if self._closed:
            raise SessionError(
                "The session is closed, and inputs were uploaded.", hint="Open a new session."
            )
        # A full check costs microseconds, so feeds of the form that passed last pass at once.
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
            # A scalar has the form of an array, and is to be converted at the next upload too.
            self._accepted = (*form, ()) if scalars else form
        self._upload(feeds)

    @abstractmethod
    def _prepare(self, dims: Mapping[str, int]) -> None:
        """The shapes of the next upload differ from the last: make buffers for these extents."""

    @abstractmethod
    def _upload(self, feeds: Feeds) -> None:
        """Moves checked arrays to the device; they may be non-contiguous."""

    @abstractmethod
    def forward(self) -> None:
        """Enqueues one pass over what was uploaded; may return before it is complete."""

    @abstractmethod
    def synchronize(self) -> None:
        """Returns when every pass is complete."""

    @final
    def download(self) -> Outputs:
        """Waits for the last pass; its outputs as fresh host arrays that no later pass overwrites.

        Raises SessionError before the first upload and after close.
        """
        if self._closed or self._accepted is None:
            not_ready()
        return self._download()

    @abstractmethod
    def _download(self) -> Outputs:
        """The outputs as fresh arrays, once the pass is complete; something was uploaded before."""

    @final
    def run(self, feeds: Feeds) -> Outputs:
        """Upload, forward, download, which waits for the pass.

        Raises FeedError for feeds that the signature does not allow, and SessionError for what the
        runtime raises.
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
        """What really ran, on the inputs of the last upload.

        It may run passes of its own, and take as much time and memory as opening the session
        again: ask when there is nothing left to measure. Raises SessionError before the first
        upload and after close.
        """
        if self._closed or self._accepted is None:
            not_ready()
        return self._provenance()

    @abstractmethod
    def _provenance(self) -> Provenance:
        """What really ran, asked of the runtime."""

    @final
    def close(self) -> None:
        """Frees what the session holds. May be called again."""
        if not self._closed:
            self._closed = True
            self._close()

    @abstractmethod
    def _close(self) -> None:
        """Frees what the session holds, once."""

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(self, *_: object) -> None:
        self.close()


class Runtime(ABC):
    """What opens artifacts. Stateless; made without arguments.

    `computes` is False for a runtime whose outputs are not the model's (the null runtime), `device`
    is where it runs: "cpu" or "cuda".
    """

    name: ClassVar[str]
    accepts: ClassVar[frozenset[Format]]
    computes: ClassVar[bool] = True
    device: ClassVar[str] = "cpu"

    @abstractmethod
    def probe(self) -> Availability:
        """Whether the runtime can be used on this machine. Never raises."""

    @abstractmethod
    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        """Opens an artifact of one of the formats in `accepts`.

        Raises SourceError when the artifact is no model that the runtime can read.
        """


def open_session(runtime: Runtime, artifact: Artifact, options: SessionOptions) -> Session:
    """Return the session that `runtime.open` makes.

    Raises what that raises, and SessionError for any other exception of the runtime.
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
    """The text of an option as bool, int, float or str. Raises UsageError for what is none."""
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
    """What a session calls in place of a pass while there is nothing to run."""
    raise SessionError(
        "A pass was asked for, but no inputs are uploaded or the session is closed.",
        hint="Call upload(feeds) on an open session first.",
    )


def host_copy(array: np.ndarray) -> np.ndarray:
    """A fresh C-contiguous copy."""
    return np.array(array, order="C", copy=True)
