"""How long work tells how far it is: the caller decides who hears it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final


class Progress(ABC):
    """A listener to the progress of a step."""

    @abstractmethod
    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        """`done` of `total` parts of `task` are finished; `detail` says what came of the last."""

    @abstractmethod
    def note(self, text: str) -> None:
        """One line about what is happening."""


@final
class Silent(Progress):
    """Says nothing: the default of the Python API."""

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        pass

    def note(self, text: str) -> None:
        pass
