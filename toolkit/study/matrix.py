"""The cells of a study: every combination of what its sections say, in the order of work."""

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

MOST_CELLS = 100_000  # which are planned in seconds
MANY = {"runtimes": "runtime", "trainers": "trainer"}  # rows of one cell, by what each is


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One step with one value of each of its keys, on what the cells of `parents` gave.

    The first parent is what was trained; those of a measurement are followed by its other forms.
    """

    step: str
    values: Mapping[str, Any]
    repetition: int = 0
    parents: tuple[Cell, ...] = ()

    @cached_property
    def id(self) -> str:
        """The same for the same work, whatever else is in the study."""
        identity = [self.step, self.values, self.repetition, [one.id for one in self.parents]]
        named = [self.step, self.dimensions.get("model", ""), self.values.get("to", "")]
        slug = re.sub(r"[^a-z0-9]+", "-", "-".join(filter(None, named)).lower()).strip("-")
        return f"{slug[:48]}-{digest_bytes(canonical(identity))[-10:]}"

    @cached_property
    def dimensions(self) -> dict[str, Any]:
        """What sets it apart: its own values, over those of what it was made from. An option has
        its table before its name, as in "settings.blocks"; those of a form are told by the form."""
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
        """Its own values in words."""
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
        """What was trained, or it itself."""
        return self.parents[0].root if self.parents else self

    @property
    def ancestors(self) -> list[Cell]:
        """All cells that it stands on, each once, those that come first first."""
        found: dict[str, Cell] = {}
        for parent in self.parents:
            found |= {one.id: one for one in (*parent.ancestors, parent)}
        return list(found.values())


def cells_of(study: Study) -> list[Cell]:
    """Return all cells, each after those that it stands on.

    Raise UsageError for a study without a cell, for one with more than MOST_CELLS combinations,
    and for a section that has nothing to work on.
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
            f"The study {study.name} comes to no cell.", hint="Loosen its [[exclude]] tables."
        )
    return _in_turn(list(cells.values()))


def _too_many(study: Study, section: Section, count: int) -> UsageError:
    told = f"{count:,}" if count < 2**63 else "more than 2**63"  # Python refuses to print some
    return UsageError(
        f"The study {study.name} has {told} combinations up to [[{section.step}]], [[exclude]] "
        f"not counted; at most {MOST_CELLS:,} are possible.",
        hint="Give fewer values or repetitions, or divide the study into several.",
    )


def _in_turn(cells: Sequence[Cell]) -> list[Cell]:
    """Each model as far as it goes before the next is begun, so that results come early."""
    order = {cell.id: number for number, cell in enumerate(cells)}
    return sorted(cells, key=lambda cell: (order[cell.root.id], order[cell.id]))


class _Combinations:
    """The cells of one section, one for each combination and each of its `grounds`."""

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
        """How many cells there are, without making them."""
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
        """Give every combination of the values, in the order in which they are written."""
        for chosen in itertools.product(*self._alternatives):
            values: dict[str, Any] = {}
            for (name, option), value in zip(self._names, chosen, strict=True):
                if option is None:
                    values[name] = value
                else:
                    values.setdefault(name, {})[option] = value
            yield values


def _grounds(section: Section, made: Mapping[str, list[Cell]]) -> list[tuple[Cell, ...]]:
    """What the cells of a section work on, a tuple for each."""
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
    """The cell without the rows that are excluded; None where nothing is left of it."""
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
    """Whether each value of the rule, or one of each list of them, is the cell's."""
    return all(
        key in dimensions and dimensions[key] in (value if isinstance(value, list) else [value])
        for key, value in rule.items()
    )
