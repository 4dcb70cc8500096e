"""Interface of executors, which run the cells of a study."""

from __future__ import annotations

from abc import ABC, abstractmethod

from toolkit.study.job import Job
from toolkit.study.store import Outcome


class Executor(ABC):
    """Executor that runs each cell in a separate process, and at most one cell per machine."""

    @abstractmethod
    def free(self) -> bool:
        """Return whether a machine is free now, for any cell."""

    @abstractmethod
    def able(self, job: Job) -> bool:
        """Return whether a machine that can run this cell is free now."""

    @abstractmethod
    def start(self, job: Job) -> None:
        """Start a cell. Only call it after `able` returned True for the cell."""

    @abstractmethod
    def wait(self) -> tuple[Job, Outcome | None]:
        """Wait until a cell ends, and return it with its outcome.

        The directory of the cell is then in its final place. An outcome of None means that it was
        lost with its machine, and that the cell has to be started again. Raises ToolkitError if no
        cell is running or the executor itself failed.
        """

    @abstractmethod
    def close(self) -> None:
        """End the running cells and discard their output. Call it once."""
