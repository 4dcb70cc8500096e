"""Compare the inner tensors of two variants of a model, matched by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from exporters import EXPOSERS
from runtimes import ACCEPTS
from toolkit.core.artifact import Artifact
from toolkit.core.documents import Json
from toolkit.core.errors import UsageError
from toolkit.core.specs import Feeds
from toolkit.core.temporary import scratch_directory
from toolkit.exporting.float64_oracle import expected_of, outputs_of
from toolkit.parity.judging import Judgement, judge
from toolkit.parity.outputs import as_dtype_of
from toolkit.parity.similarity import Similarity, similarity
from toolkit.sources.isolated_backend import open_files
from toolkit.sources.resolve import candidates, open_artifact
from toolkit.sources.runtime_selection import known_runtimes


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An inner tensor, or an output, that both variants have.

    `operator` computes it in the second variant, `judgement` says whether its error is allowed, and
    `similarity` how close it is to the reference's.
    """

    name: str
    operator: str
    judgement: Judgement
    similarity: Similarity | None = None

    def to_json(self) -> Json:
        near = self.similarity or Similarity(sqnr_db=None, cosine=None)
        return {
            "name": self.name,
            "operator": self.operator,
            **self.judgement.to_json(),
            **near.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The tensors that both variants have, in the order in which the second computes them.

    `others` counts the tensors of the first that the second lacks, by name and shape.
    """

    runtime: str
    reference: str
    oracle: str | None
    layers: tuple[Layer, ...]
    others: int

    @property
    def first_departing(self) -> Layer | None:
        return next((layer for layer in self.layers if not layer.judgement.passed), None)

    def to_json(self) -> Json:
        first = self.first_departing
        return {
            "runtime": self.runtime,
            "reference": self.reference,
            "oracle": self.oracle,
            "first_departing": first and first.name,
            "others": self.others,
            "tensors": [layer.to_json() for layer in self.layers],
        }


def compare_layers(
    given: Artifact, artifact: Artifact, runtime: str | None, feeds: Feeds, other_feeds: Feeds
) -> Layers:
    """Compare the inner tensors of two variants on the same inputs, each in its own layout.

    An optimising runtime fuses less when inner tensors are outputs. Raises UsageError for a variant
    whose inner tensors cannot be exposed, and if no tensors match by name and shape.
    """
    exposable = EXPOSERS.names()
    forms = [form for form in candidates(given) if form.format in exposable]
    for form, found in ((given, forms), (artifact, [artifact])):
        if not found or found[0].format not in exposable:
            raise UsageError(
                f"No inner tensors can be had of {form.path}, which is {form.format}.",
                hint=f"Name a form that is {', '.join(exposable)}, or leave --layers out.",
            )
    with scratch_directory() as scratch:
        first, _ = exposed(forms[0], scratch / "first")
        second, operators = exposed(artifact, scratch / "second")
        opens = runtime is not None and second.format in ACCEPTS.get(runtime, {second.format})
        chosen = runtime if runtime and opens else known_runtimes(None, [second])[0]
        truth = expected_of([first], [[feeds]])
        ((got,),) = outputs_of(chosen, second, [[other_feeds]])
    (expected,), (exact,) = truth.outputs[0], truth.exact[0]
    both = got.keys() & expected.keys()
    shared = [n for n in operators if n in both and got[n].shape == expected[n].shape]
    if not shared:
        raise UsageError(
            f"{given.path} and {artifact.path} have no inner tensors of the same names and shapes.",
            hint="Compare forms of which one was made from the other.",
        )
    return Layers(
        runtime=chosen,
        reference=truth.reference,
        oracle=truth.oracle,
        layers=tuple(
            Layer(
                name=name,
                operator=operators[name],
                judgement=judge(
                    {name: as_dtype_of(expected[name], got[name])},
                    {name: expected[name]},
                    None if exact is None or name not in exact else {name: exact[name]},
                    artifact.precision,
                ),
                similarity=similarity(as_dtype_of(expected[name], got[name]), expected[name]),
            )
            for name in shared
        ),
        others=len(expected) - len(shared),
    )


def exposed(source: Artifact, directory: Path) -> tuple[Artifact, Mapping[str, str]]:
    """Write a variant that also outputs its inner tensors to the new `directory`.

    Return its artifact, and the operator that computes each tensor.
    """
    directory.mkdir()
    with open_files() as files:
        path, operators = files.expose(source, directory)
    found = open_artifact(path)
    signature = replace(found.signature, inputs=source.signature.inputs)
    return replace(found, precision=source.precision, signature=signature), operators
