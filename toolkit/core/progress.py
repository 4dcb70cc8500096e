"""Interface through which long operations report their progress to the caller."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final


class Progress(ABC):
    """Listener to the progress of a step."""

    @abstractmethod
    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Report that `done` of `total` parts of `task` are finished; `detail` is on the last."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Report one line about what is happening."""


@final
class Silent(Progress):
    """Listener that ignores all reports, the default of the Python API."""

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        pass

    def note(self, text: str) -> None:
        pass
