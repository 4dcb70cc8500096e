"""Mutation test of the test suite: change the product at random places, see which tests notice.

Each mutation is a small change of one place, made by Cosmic Ray, whose operators replace numbers,
comparisons, conditions, loops and the like. The tests that reach the place, known from a run of
`make coverage`, run against it. A mutation is killed if one of them fails.

    make mutations                            # 60 mutations of seed 0
    make mutations MUTATIONS='--count 20 --seed 3'

To compare two suites, run the script with `--root` on a clone with the other suite: the same seed
gives the same mutations as long as the product is the same.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code
from coverage import CoverageData

PACKAGES = ("toolkit", "exporters", "runtimes", "calibration", "models")
MOST_TESTS = 60  # against one mutation, the most specific first
MOST_SECONDS = 240  # for one mutation; one that is not killed by then has survived
STAGE = re.compile(r" \((setup|call|teardown)\)$")  # what PYTEST_CURRENT_TEST ends with
FAILURES = ("FAILED ", "ERROR ")  # lines of pytest's summary


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One change of the product."""

    path: str
    line: int
    operator: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.operator.removeprefix('core/')}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--coverage", type=Path, help="data of `make coverage`")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("mutations.json"))
    options = parser.parse_args()
    root = options.root.resolve()
    data = options.coverage or root / ".coverage-data" / "data"
    if not data.is_file():
        print(f"error: there is no {data}: run make coverage first", file=sys.stderr)
        return 2
    reach = Reach(data, root)
    results = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for number, mutation in enumerate(drawn(root, options.count, options.seed), 1):
        if str(mutation) not in results:
            began = time.monotonic()
            killed_by, ran = challenge(root, mutation, reach.tests(mutation))
            results[str(mutation)] = {
                **asdict(mutation),
                "killed_by": killed_by,
                "tests": ran,
                "seconds": round(time.monotonic() - began, 1),
            }
            options.out.write_text(json.dumps(results, indent=1))
        found = results[str(mutation)]
        verdict = f"killed by {found['killed_by']}" if found["killed_by"] else "survived"
        print(f"{number:3} {mutation}: {verdict}, {found['tests']} tests", flush=True)
    counts = Counter(bool(found["killed_by"]) for found in results.values())
    print(f"{counts[True]} of {len(results)} killed")
    return 0


def drawn(root: Path, count: int, seed: int) -> list[Mutation]:
    """Return `count` mutations, drawn from all places where one is possible, an operator each."""
    rng = random.Random(seed)
    places: dict[tuple[str, int, int], list[Mutation]] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            for column, mutation in possible(root, path):
                places.setdefault((mutation.path, mutation.line, column), []).append(mutation)
    return [rng.choice(places[place]) for place in rng.sample(sorted(places), count)]


def possible(root: Path, path: Path) -> Iterator[tuple[int, Mutation]]:
    """Yield the column and the mutation for every change of a file that can alter a behaviour."""
    nodes = list(ast_nodes(get_ast_from_path(path)))
    typed = set(annotated_lines(path.read_text()))
    for name in sorted(cosmic_ray.plugins.operator_names()):
        operator_class = cosmic_ray.plugins.get_operator(name)
        if operator_class.arguments():
            continue
        operator = operator_class()
        positions = (place for node in nodes for place in operator.mutation_positions(node))
        for occurrence, ((line, column), _) in enumerate(positions):
            if "BitOr" in name and line in typed:
                continue  # `int | None` in an annotation, which nothing evaluates
            where = str(path.relative_to(root))
            yield column, Mutation(path=where, line=line, operator=name, occurrence=occurrence)


def annotated_lines(code: str) -> Iterator[int]:
    """Yield the lines of type annotations."""
    for node in ast.walk(ast.parse(code)):
        annotations = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for found in annotations:
            if found is not None:
                yield from range(found.lineno, found.end_lineno + 1)


class Reach:
    """Which tests reach a line: from coverage whose contexts are the tests' names."""

    def __init__(self, data: Path, root: Path) -> None:
        self._data = CoverageData(str(data))
        self._data.read()
        self._root = root
        self._sizes: Counter[str] = Counter()
        for path in self._data.measured_files():
            for contexts in self._data.contexts_by_lineno(path).values():
                self._sizes.update({test_of(context) for context in contexts})

    def tests(self, mutation: Mutation) -> list[str]:
        """Return the tests that reach it, those first that reach little besides its file.

        Of a line that runs on import, the tests that reach the file.
        """
        lines = self._data.contexts_by_lineno(str(self._root / mutation.path))
        in_file = Counter(test_of(one) for contexts in lines.values() for one in contexts)
        found = {test_of(context) for context in lines.get(mutation.line, [])} - {""}
        if "" in {test_of(context) for context in lines.get(mutation.line, [])}:
            found = in_file.keys() - {""}
        ordered = sorted(found, key=lambda test: (-in_file[test] / self._sizes[test], test))
        return ordered[:MOST_TESTS]


def test_of(context: str) -> str:
    """Return the test of a context: of this process, or of one that it started."""
    name = context[context.rfind("|tests/") + 1 :]
    return STAGE.sub("", name) if name.startswith("tests/") else ""


def challenge(root: Path, mutation: Mutation, tests: list[str]) -> tuple[str | None, int]:
    """Run the tests against the mutated file; return the first that failed, and their number.

    A test that fails without the mutation as well does not count.
    """
    path = root / mutation.path
    code = path.read_text()
    operator = cosmic_ray.plugins.get_operator(mutation.operator)()
    mutated = mutate_code(code, operator, mutation.occurrence)
    assert mutated is not None, mutation
    left = list(tests)
    while left:
        path.write_text(mutated)
        try:
            failed = first_failure(root, left)
        finally:
            path.write_text(code)
        if failed is None:
            return None, len(left)
        anyway = first_failure(root, [failed] if failed in left else left)
        if anyway is None:
            return failed, len(left)
        print(f"    {anyway} fails without the mutation as well", flush=True)
        left.remove(anyway)
    return None, 0


def first_failure(root: Path, tests: list[str]) -> str | None:
    """Run the tests, in a pytest process for each core; return the first that failed, if any."""
    cores = len(os.sched_getaffinity(0))
    command = [
        root / ".venv/bin/pytest", "--exitfirst", "--quiet", "--no-header", "--tb=no", "-rfE",
        f"--numprocesses={cores}", "--dist=loadfile", "--timeout=120", *tests,
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        told, _ = process.communicate(timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    if process.returncode == 0:
        return None
    lines = [line for line in told.splitlines() if line.startswith(FAILURES)]
    if not lines:
        raise RuntimeError(f"pytest ended with exit code {process.returncode}:\n{told}")
    return lines[0].partition(" ")[2].partition(" - ")[0]


if __name__ == "__main__":
    sys.exit(main())
