"""Cells of a study: all combinations of the values in its sections, in the order they run."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from toolkit.core.documents import canonical
from toolkit.core.errors import UsageError
from toolkit.core.files import digest_bytes
from toolkit.study.document import Section, Study
from toolkit.study.keys import STEPS

MOST_CELLS = 100_000  # planning them takes seconds
MANY = {"runtimes": "runtime", "trainers": "trainer"}  # key of the rows of a cell, and of one row


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One step with one value for each of its keys, and the cells that it depends on.

    The first of `parents` is the training. The second parent of a calibration is an export. The
    other parents of a `verify` or `bench` cell are all exports and calibrations of that training.
    """

    step: str
    values: Mapping[str, Any]
    repetition: int = 0
    parents: tuple[Cell, ...] = ()

    @cached_property
    def id(self) -> str:
        """Identifier that depends only on the step, values and repetition, and on the parents."""
        identity = [self.step, self.values, self.repetition, [one.id for one in self.parents]]
        named = [self.step, self.dimensions.get("model", ""), self.values.get("to", "")]
        slug = re.sub(r"[^a-z0-9]+", "-", "-".join(filter(None, named)).lower()).strip("-")
        return f"{slug[:48]}-{digest_bytes(canonical(identity))[-10:]}"

    @cached_property
    def dimensions(self) -> dict[str, Any]:
        """Values of the first parent's dimensions, updated with those of the cell.

        The name of an option includes its table, as in "settings.blocks". The repetition is
        included unless it is 0. The dimensions of other parents are not included.
        """
        found: dict[str, Any] = dict(self.parents[0].dimensions) if self.parents else {}
        for name, value in self.values.items():
            if STEPS[self.step][name].table:
                found |= {f"{name}.{option}": one for option, one in value.items()}
            else:
                found[name] = value
        if self.repetition:
            found["repetition"] = self.repetition
        return found

    @property
    def described(self) -> str:
        """Description of the values of this cell, without those of its parents."""
        parts = []
        for name, value in self.values.items():
            told = " ".join(map(str, value)) if isinstance(value, list) else value
            if isinstance(value, dict):
                told = " ".join(f"{key}={one}" for key, one in value.items())
            parts.append(f"{name} {told}")
        repeated = f", repetition {self.repetition + 1}" if self.repetition else ""
        return f"{', '.join(parts)}{repeated}"

    @property
    def root(self) -> Cell:
        """The training that the cell depends on, or the cell itself if it has no parents."""
        return self.parents[0].root if self.parents else self

    @property
    def ancestors(self) -> list[Cell]:
        """All cells that this one depends on, without duplicates, each after its parents."""
        found: dict[str, Cell] = {}
        for parent in self.parents:
            found |= {one.id: one for one in (*parent.ancestors, parent)}
        return list(found.values())


def cells_of(study: Study) -> list[Cell]:
    """Return all cells, each after its parents.

    Raises UsageError for a study that has no cells or more than MOST_CELLS combinations, and for a
    section that needs a trained model if there is none.
    """
    made: dict[str, list[Cell]] = {step: [] for step in STEPS}
    count = 0
    for step in STEPS:
        for section in study.sections:
            if section.step == step:
                combinations = _Combinations(section, _grounds(section, made))
                count += combinations.count
                if count > MOST_CELLS:
                    raise _too_many(study, section, count)
                made[step] += [
                    cell
                    for found in combinations.cells()
                    if (cell := _kept(found, study.exclude)) is not None
                ]
    cells = {cell.id: cell for step in STEPS for cell in made[step]}
    if not cells:
        raise UsageError(
            f"The study {study.name} has no cells.", hint="Loosen its [[exclude]] tables."
        )
    return _in_turn(list(cells.values()))


def _too_many(study: Study, section: Section, count: int) -> UsageError:
    told = f"{count:,}" if count < 2**63 else "more than 2**63"  # str() refuses huge ones
    return UsageError(
        f"The study {study.name} has {told} combinations up to [[{section.step}]], [[exclude]] "
        f"not counted; at most {MOST_CELLS:,} are possible.",
        hint="Give fewer values or repetitions, or divide the study into several.",
    )


def _in_turn(cells: Sequence[Cell]) -> list[Cell]:
    """Sort the cells so that one model is finished before the next, for early results."""
    order = {cell.id: number for number, cell in enumerate(cells)}
    return sorted(cells, key=lambda cell: (order[cell.root.id], order[cell.id]))


class _Combinations:
    """Cells of one section: one per tuple of parents in `grounds`, combination and repetition."""

    def __init__(self, section: Section, grounds: Sequence[tuple[Cell, ...]]) -> None:
        self._section, self._grounds = section, grounds
        self._names: list[tuple[str, str | None]] = []
        self._alternatives: list[list[Any]] = []
        keys = STEPS[section.step]
        for name, given in section.values.items():
            if keys[name].table:
                for option, value in given.items():
                    self._names.append((name, option))
                    self._alternatives.append(value if isinstance(value, list) else [value])
            else:
                self._names.append((name, None))
                self._alternatives.append(keys[name].alternatives(name, given))

    @property
    def count(self) -> int:
        """Number of cells, computed without creating them."""
        each = math.prod(map(len, self._alternatives))
        return len(self._grounds) * each * self._section.repetitions

    def cells(self) -> Iterator[Cell]:
        section = self._section
        for parents in self._grounds:
            for values in self._values():
                for repetition in range(section.repetitions):
                    yield Cell(
                        step=section.step, values=values, repetition=repetition, parents=parents
                    )

    def _values(self) -> Iterator[dict[str, Any]]:
        """Yield every combination of the values; those of the last key vary fastest."""
        for chosen in itertools.product(*self._alternatives):
            values: dict[str, Any] = {}
            for (name, option), value in zip(self._names, chosen, strict=True):
                if option is None:
                    values[name] = value
                else:
                    values.setdefault(name, {})[option] = value
            yield values


def _grounds(section: Section, made: Mapping[str, list[Cell]]) -> list[tuple[Cell, ...]]:
    """Return the tuples of parents for which the cells of a section are made.

    Raises UsageError if the section needs a trained model and there is none.
    """
    if section.step in ("train", "bench-training"):
        return [()]
    trained = [cell for cell in made["train"] if _matches(cell.dimensions, section.where)]
    if not made["train"]:
        raise UsageError(
            f"[[{section.step}]] has nothing to work on: the study trains nothing.",
            hint="Add [[train]] with a model and data.",
        )
    if section.step == "export":
        return [(cell,) for cell in trained]
    if section.step == "calibrate":
        return [
            (cell.parents[0], cell)
            for cell in made["export"]
            if cell.values["to"] == "onnx" and not cell.values.get("passes")
            if _matches(cell.dimensions, section.where)
        ]
    forms: dict[int, list[Cell]] = {id(cell): [] for cell in made["train"]}
    for form in (*made["export"], *made["calibrate"]):
        forms[id(form.parents[0])].append(form)
    return [(cell, *forms[id(cell)]) for cell in trained]


def _kept(cell: Cell, exclude: Sequence[Mapping[str, Any]]) -> Cell | None:
    """Return the cell without excluded rows; None if it is excluded or has no rows left."""
    values = dict(cell.values)
    dimensions = {**cell.dimensions, "step": cell.step} if exclude else {}
    for rule in exclude:
        many = next((name for name, one in MANY.items() if name in values and one in rule), None)
        rest = {key: value for key, value in rule.items() if many is None or key != MANY[many]}
        if not _matches(dimensions, rest):
            continue
        if many is None:
            return None
        out = rule[MANY[many]]
        left = [one for one in values[many] if one not in (out if isinstance(out, list) else [out])]
        if not left:
            return None
        values[many] = left
    return cell if values == cell.values else replace(cell, values=values)


def _matches(dimensions: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    """Return whether each dimension in the rule has the value given there, or one of the list."""
    return all(
        key in dimensions and dimensions[key] in (value if isinstance(value, list) else [value])
        for key, value in rule.items()
    )
