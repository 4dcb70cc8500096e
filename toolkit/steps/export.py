"""Export a model: exporters, weight parity, passes, output parity, manifest."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import models
from exporters.base import Exported, ExportOptions, Route
from exporters.weight_parity import WeightParity
from toolkit.core.artifact import PROGRAM, SOURCE, Artifact, Format, parents_of
from toolkit.core.documents import Json, seal, write_document
from toolkit.core.errors import ParityError, SourceError, UsageError
from toolkit.core.files import new_directory, refuse_existing
from toolkit.core.progress import Progress, Silent
from toolkit.core.siblings import ours
from toolkit.core.specs import Feeds, Signature, TensorSpec
from toolkit.core.temporary import scratch_directory
from toolkit.steps import parity_outputs
from toolkit.steps.capture import Example, is_in_no_file, remark_on
from toolkit.steps.choices import missing_gpu
from toolkit.steps.files import Files, open_files
from toolkit.steps.inputs import InputRequest, with_usual_shapes
from toolkit.steps.parity_outputs import OutputParity
from toolkit.steps.reference import reference_runtime
from toolkit.steps.routes import find_route, route_of
from toolkit.steps.sources import open_source

PARITY_SCHEMA = "toolkit.parity/3"
PROOF = "parity.json"
FAILING = "inputs.npz"  # on which the outputs of a form that is kept are not the model's


@dataclass(frozen=True, kw_only=True)
class Export:
    """A proved artifact: every weight explained, every output within bounds."""

    artifact: Artifact
    weights: WeightParity
    outputs: OutputParity

    def to_json(self) -> Json:
        return {
            "artifact": str(self.artifact.directory),
            "digest": self.artifact.digest,
            **self.proof(),
        }

    def proof(self) -> Json:
        return {"weights": self.weights.to_json(), "outputs": self.outputs.to_json()}


def export(
    source: str | os.PathLike[str],
    *,
    to: str,
    out: str | os.PathLike[str],
    via: str | None = None,
    passes: Sequence[str] = (),
    options: ExportOptions | None = None,
    inputs: InputRequest | None = None,
    example: Example | None = None,
    keep_failed: str | os.PathLike[str] | None = None,
    timeout_s: float | None = None,
    progress: Progress | None = None,
) -> Export:
    """Writes the model of `source` in format `to` to the new directory `out`, with the proof.

    `source` is a checkpoint, an artifact, a file of somebody else's; or a user's code, or a family,
    from which a checkpoint or SavedModel is made first and kept as `out/source`: `example` and
    `inputs` are what the user's module is called with for that. Where the target is made
    from another format than that, the model is exported to it first, through `via` if that is
    named, to a place that is removed again: the proof is against `source`. `passes` rewrite the
    ONNX graph, after the weights in it are proved and before anything is made of it; the outputs
    are compared after them. `inputs` are what the outputs are compared on, as in `bench`. Where
    nothing here runs the target, the outputs are those of the form that it was made from, and the
    proof says so. `timeout_s` is how long reading a file, and each conversion, may take: 300 and
    3600 s by default.

    Raises ParityError, and leaves nothing behind, when a weight is missing or altered or an
    output is not the model's; then `keep_failed` is a new directory for the form that failed, and
    for the inputs on which its outputs did. Raises SourceError and IntegrityError for the source;
    UsageError for a target that cannot be made of it; OutputExistsError.
    """
    target = Path(out)
    refuse_existing(target)
    if keep_failed is not None:
        refuse_existing(Path(keep_failed))
    chosen, listener = options or ExportOptions(), progress or Silent()
    with (
        new_directory(target) as partial,
        scratch_directory() as scratch,
        open_files(timeout_s, timeout_s) as files,
    ):
        if is_in_no_file(source):
            files.prepare("torch")  # the most usual
        given, request = open_source(
            source, example, inputs or InputRequest(), partial / SOURCE, files
        )
        request = with_usual_shapes(request, given.signature, chosen.profiles or {})
        if remark := remark_on(source):
            listener.note(f"warning: {remark}")
        route = _route(given, to, via, passes, made=given.directory.name == SOURCE)
        routes = [route_of(name) for name in route if name is not None]
        for name in files.unread_weights(given):
            listener.note(f"{name} is not read with these inputs, and is left out")
        _require_passes(passes, to, given, routes)
        _require_options(chosen, to, routes)
        _require_builder(given, routes)
        stage = _Stage(
            given=given,
            artifact=given,
            files=files,
            runs=given,
            checked_with=reference_runtime([given]),
        )
        for number, exporter in enumerate(route):
            place = partial if number == len(route) - 1 else scratch / str(number)
            place.mkdir(exist_ok=True)
            what = route_of(exporter).format if exporter else given.format
            listener.update("export", number + 1, len(route) + 1, f"{what}, and its weights")
            with _keeping(keep_failed, source, place, partial / SOURCE):
                stage = stage.next(exporter, place, chosen, passes, partial)
        assert stage.weights is not None
        listener.update(
            "export", len(route) + 1, len(route) + 1, f"outputs of {stage.checked_with}"
        )
        outputs = parity_outputs.compare(
            given,
            stage.runs,
            stage.checked_with,
            request,
            progress=listener,
        )
        outputs = replace(outputs, not_run=stage.not_run)
        done = Export(artifact=stage.artifact, weights=stage.weights, outputs=outputs)
        if not outputs.passed:
            failing = outputs.worst.feeds
            with _keeping(keep_failed, source, stage.runs.directory, partial / SOURCE, failing):
                raise _outputs_differ(outputs, to)
        write_document(partial / PROOF, seal(PARITY_SCHEMA, done.proof()))
        stage.save(partial)
    return replace(done, artifact=Artifact.load(target))


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """A form on the way from `given`: what an exporter wrote, the proof of its weights, and what
    passes have changed since. `runs` is that form, or the last one before it that something here
    runs: the outputs are compared on that, with `checked_with`; `unable` says why."""

    given: Artifact
    artifact: Artifact
    files: Files
    runs: Artifact
    checked_with: str
    weights: WeightParity | None = None
    changes: Sequence[Json] = ()
    unable: str | None = None

    @property
    def not_run(self) -> str | None:
        """Says of outputs that they are those of another form; None where they are its own."""
        if self.runs is self.artifact:
            return None
        return (
            f"the {self.artifact.format} form itself has not run, as {self.unable}: these are the "
            f"outputs of the {self.runs.format} form that it was made from"
        )

    def next(
        self,
        exporter: str | None,
        place: Path,
        options: ExportOptions,
        passes: Sequence[str],
        home: Path,
    ) -> _Stage:
        """What comes of it by an exporter, in `place`, on the way to what will lie in `home`;
        without one a copy, for the passes.

        Raises ParityError where a weight is missing or altered. Where passes rewrote the graph
        before, the proof is that of the graph before them, if what was made now is the graph
        after them.
        """
        if exporter is None:
            exported, format = _copied(self.artifact, place), self.artifact.format
        else:
            heeded = route_of(exporter).options
            asked = {n: v for n, v in options.given().items() if n in heeded}
            exported = self.files.export(exporter, self.artifact, place, ExportOptions(**asked))
            format = route_of(exporter).format
        source = self.artifact if self.changes else self.given
        weights = self.files.weight_parity(source, format, place / exported.entry)
        if not weights.passed:
            _saved(place, self.artifact, self.given, format, exported, home)  # it may be kept
            raise _weights_differ(weights, format)
        changes = self.changes
        if format is Format.ONNX and passes and not changes:
            signature = exported.signature or self.artifact.signature
            changes, exported = self._rewrite(passes, place / exported.entry, exported, signature)
        known = self.given.options.get("passes", ())
        exported = replace(exported, options={**exported.options, "passes": [*known, *changes]})
        artifact = _saved(place, self.artifact, self.given, format, exported, home)
        checked_with = (
            route_of(exporter).checked_with if exporter else reference_runtime([artifact])
        )
        unable = missing_gpu(checked_with)
        return replace(
            self,
            artifact=artifact,
            runs=self.runs if unable else artifact,
            checked_with=self.checked_with if unable else checked_with,
            weights=self.weights if self.changes else weights,
            changes=changes,
            unable=unable,
        )

    def _rewrite(
        self, passes: Sequence[str], path: Path, exported: Exported, signature: Signature
    ) -> tuple[list[Json], Exported]:
        """Run the passes on a graph. Return what each changed, and what is in the graph then, which
        takes and gives what `signature` says, in the same order, but for what the passes fixed."""
        changes, precision, found = self.files.rewrite(self.artifact, passes, path)
        after = Signature(
            inputs=_with_layouts(found.inputs, signature.inputs),
            outputs=_with_layouts(found.outputs, signature.outputs),
        )
        return changes, replace(exported, precision=precision, signature=after)

    def save(self, directory: Path) -> None:
        """The manifest once more, over all that lies in `directory` by now."""
        kept = {
            name: getattr(self.artifact, name)
            for name in ("model", "format", "precision", "signature", "entry", "options")
        }
        Artifact.save(directory, parents=parents_of(directory, self.given), **kept)


@contextlib.contextmanager
def _keeping(
    keep: str | os.PathLike[str] | None,
    source: str | os.PathLike[str],
    failed: Path,
    made: Path,
    feeds: Feeds | None = None,
) -> Iterator[None]:
    """Copy the form in `failed` to `keep`, if the block raises ParityError, and say so.

    `made` is where the checkpoint of a user's code is, if there is one; it is copied as well, as
    are `feeds`. The error then says how to repeat the comparison.
    """
    try:
        yield
    except ParityError as error:
        if keep is None:
            hint = f"{error.hint} `toolkit export --keep-failed DIR` keeps the form that failed."
            raise ParityError(error.problem, hint=hint) from None
        with new_directory(Path(keep)) as kept:
            shutil.copytree(failed, kept, dirs_exist_ok=True)
            if made.is_dir():
                shutil.copytree(made, kept / SOURCE, dirs_exist_ok=True)
            if feeds is not None:
                stored: dict[str, Any] = {name: _storable(a) for name, a in feeds.items()}
                np.savez(kept / FAILING, **stored)
        first = Path(keep) / SOURCE if made.is_dir() else source
        repeat = f"toolkit parity {'weights' if feeds is None else 'outputs'} {first} {keep}"
        if feeds is not None:
            repeat += f" --inputs {Path(keep) / FAILING}"
        raise ParityError(
            error.problem.replace("Nothing was written.", f"The form that failed is in {keep}."),
            hint=f"{error.hint} To repeat the comparison: {repeat}",
        ) from None


def _storable(array: np.ndarray) -> np.ndarray:
    """Strings as NumPy stores them without pickle."""
    return array.astype(str) if array.dtype == object else array


FLAGS = {  # where it is not the name of the option itself
    "compute_capabilities": "--compute-capability",
    "profiles": "--profile",
}


def _route(
    given: Artifact, to: str, via: str | None, passes: Sequence[str], *, made: bool
) -> list[str | None]:
    """The exporters in turn, by name; None stands for a copy, which the passes are applied to, or
    which is all that is wanted of what was made from a user's code."""
    route: list[str | None] = [*find_route(given.format, to, via)]
    if (given.format is Format.ONNX and (passes or not route)) or (made and not route):
        return [None, *route]
    if not route:
        raise UsageError(
            f"{given.path} is {given.format} already.", hint="Choose another target, or use it."
        )
    return route


def _saved(
    directory: Path,
    source: Artifact,
    given: Artifact,
    format: Format,
    exported: Exported,
    home: Path,
) -> Artifact:
    """The manifest of what an exporter wrote of `source`."""
    return Artifact.save(
        directory,
        model=given.model,
        format=format,
        precision=exported.precision,
        signature=exported.signature or source.signature,
        entry=exported.entry,
        parents=parents_of(home, given),
        options=exported.options,
    )


def _with_layouts(
    found: Sequence[TensorSpec], known: Sequence[TensorSpec]
) -> tuple[TensorSpec, ...]:
    """What a file declares, with the layouts that it cannot, and the names of axes that it lost."""
    return tuple(
        replace(
            a,
            shape=tuple(
                x if isinstance(x, int) else y for x, y in zip(a.shape, b.shape, strict=True)
            ),
            layout=b.layout,
        )
        for a, b in zip(found, known, strict=True)
    )


def _copied(artifact: Artifact, directory: Path) -> Exported:
    """The files of an ONNX artifact, each under its own name."""
    for name in artifact.files:
        if name != PROOF:
            artifact.copy_file(name, directory / name)
    return Exported(entry=artifact.entry, precision=artifact.precision, options=artifact.options)


def _require_passes(
    passes: Sequence[str], to: str, given: Artifact, routes: Sequence[Route]
) -> None:
    """Raises UnknownNameError for a pass that is none, UsageError for a number that it does not
    take, and where there is no ONNX graph."""
    if passes:
        with ours():
            from exporters.passes.rewriting import parse

        parse(passes)
    if passes and Format.ONNX not in (given.format, *(route.format for route in routes)):
        raise UsageError(
            f"Got passes {', '.join(passes)} for {to}, which is not made of an ONNX graph.",
            hint="Leave --passes out, or export to onnx.",
        )


def _require_options(options: ExportOptions, to: str, routes: Sequence[Route]) -> None:
    """Raises UsageError for an option that nothing on the way heeds."""
    heeded = {name for route in routes for name in route.options}
    if ignored := options.given().keys() - heeded:
        named = ", ".join(FLAGS.get(name, f"--{name}") for name in sorted(ignored))
        raise UsageError(
            f"Got {named}, which says nothing to an export to {to} from this source.",
            hint="Leave it out.",
        )


def _require_builder(given: Artifact, routes: Sequence[Route]) -> None:
    """Raises UnknownNameError for a checkpoint whose model the exporter's framework has not.

    A user's own torch module is a program, which asks for no builder in torch, and has none in any
    other: SourceError.
    """
    first = next(iter(routes), None)
    if given.format is not Format.CHECKPOINT or first is None or first.framework is None:
        return
    if PROGRAM not in given.files:
        models.FAMILIES.create(given.model.family).builders.entry(first.framework)
    elif first.framework != "torch":
        raise SourceError(
            f"{given.model.name!r} is a torch model of your own, and an export to {first.format} "
            f"builds a family of the toolkit in {first.framework}.",
            hint="Choose a target that is made in torch or from ONNX, or a family of `toolkit "
            "models`.",
        )


def _weights_differ(weights: WeightParity, format: Format) -> ParityError:
    failures = weights.failures()
    named = "; ".join(f"{t.name} {list(t.shape)} is {t.match}" for t in failures[:5])
    more = f" and {len(failures) - 5} more" if len(failures) > 5 else ""
    return ParityError(
        f"Weight parity failed: {weights.explained} of {weights.total} weights are explained in "
        f"the {format} form; {named}{more}. Nothing was written.",
        hint="The exporter changed the model. Report it with the versions from `toolkit doctor`.",
    )


def _outputs_differ(outputs: OutputParity, to: str) -> ParityError:
    case = outputs.worst
    if case.judgement.passed:
        return ParityError(
            f"Output parity of the export to {to} cannot be decided on any of the inputs: "
            f"{case.judgement.reason}. Nothing was written.",
            hint="Give inputs that the model is made for, with --data or --inputs.",
        )
    return ParityError(
        f"Output parity of the export to {to} failed on {case.inputs}, batch {case.batch}: "
        f"{case.judgement.reason}. Nothing was written.",
        hint="The weights are right, so an operation is not: `toolkit parity outputs A B --layers` "
        "names the first that departs.",
    )
