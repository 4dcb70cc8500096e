"""Where cells run."""

from __future__ import annotations

from abc import ABC, abstractmethod

from toolkit.study.job import Job
from toolkit.study.store import Outcome


class Executor(ABC):
    """Runs cells, each in a process of its own, until it is closed."""

    @abstractmethod
    def free(self) -> bool:
        """Return whether any cell could be started just now."""

    @abstractmethod
    def able(self, job: Job) -> bool:
        """Whether there is a machine for it just now. None runs two cells at a time."""

    @abstractmethod
    def start(self, job: Job) -> None:
        """Begins a cell for which there is a machine."""

    @abstractmethod
    def wait(self) -> tuple[Job, Outcome | None]:
        """The next cell that ended, which lies in its place then; None for an outcome that was lost
        with its machine, so that it must be started again.

        Raises ToolkitError where nothing runs that could end.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends what runs; nothing of it stays. Idempotent."""
