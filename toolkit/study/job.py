"""Jobs: the description of a cell that its process receives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from toolkit.study.matrix import Cell
from toolkit.study.store import ARTIFACT, CELLS, CHECKPOINT, State, Store


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A parent of a cell. `done` is False if it failed or was skipped, or has not run."""

    id: str
    step: str
    done: bool


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell to run, and the absolute path of its study's directory."""

    id: str
    step: str
    values: Mapping[str, Any]
    dimensions: Mapping[str, Any]
    grounds: Sequence[Ground]
    directory: str
    data_dir: str | None

    @classmethod
    def of(cls, cell: Cell, store: Store, data_dir: Path | None) -> Self:
        def ground(parent: Cell) -> Ground:
            found = store.outcome(parent.id)
            done = found is not None and found.state is State.DONE
            return Ground(id=parent.id, step=parent.step, done=done)

        return cls(
            id=cell.id,
            step=cell.step,
            values=cell.values,
            dimensions=cell.dimensions,
            grounds=[ground(parent) for parent in cell.parents],
            directory=str(store.directory.resolve()),
            data_dir=None if data_dir is None else str(data_dir.resolve()),
        )

    @property
    def place(self) -> Path:
        return Path(self.directory) / CELLS / self.id

    @property
    def partial(self) -> Path:
        """Directory of the cell until it is complete and moved to `place`."""
        return self.place.with_name(f".{self.id}.partial")

    @property
    def checkpoint(self) -> Path:
        """Directory of the first parent's checkpoint."""
        return self.place.with_name(self.grounds[0].id) / CHECKPOINT

    @property
    def forms(self) -> list[Path]:
        """Directories of the variants made by the other parents, without those that failed."""
        made = [ground for ground in self.grounds[1:] if ground.done]
        return [self.place.with_name(ground.id) / ARTIFACT for ground in made]

    def to_text(self) -> str:
        return json.dumps({**asdict(self), "grounds": [asdict(one) for one in self.grounds]})

    @classmethod
    def from_text(cls, text: str) -> Self:
        found = json.loads(text)
        return cls(**{**found, "grounds": [Ground(**one) for one in found["grounds"]]})
