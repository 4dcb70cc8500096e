"""Export a model, prove its weights and outputs, and write the manifest."""

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
from exporters.proof.weight_parity import WeightParity
from toolkit.core.artifact import PROGRAM, SOURCE, Artifact, Format, parents_of
from toolkit.core.documents import Json, seal, write_document
from toolkit.core.errors import ParityError, SourceError, UsageError
from toolkit.core.files import new_directory, refuse_existing
from toolkit.core.import_isolation import toolkit_imports
from toolkit.core.progress import Progress, Silent
from toolkit.core.specs import Feeds, Signature, TensorSpec
from toolkit.core.temporary import scratch_directory
from toolkit.exporting import check_outputs
from toolkit.exporting.check_outputs import OutputParity
from toolkit.sources.capture import Example, is_in_no_file, remark_on
from toolkit.sources.export_paths import find_route, route_of
from toolkit.sources.inputs import InputRequest, with_usual_shapes
from toolkit.sources.isolated_backend import Files, open_files
from toolkit.sources.reference_runtime import reference_runtime
from toolkit.sources.resolve import open_source
from toolkit.sources.runtime_selection import missing_gpu

PARITY_SCHEMA = "toolkit.parity/3"
PROOF = "parity.json"
FAILING = "inputs.npz"  # inputs on which a kept variant that failed gives wrong outputs


@dataclass(frozen=True, kw_only=True)
class Export:
    """An exported artifact with its proof: every weight explained, every output within bounds."""

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
    """Export `source` to format `to`, and write it with the proof to the new directory `out`.

    `source` is a checkpoint, an artifact, a model file without a manifest, user code, or a family.
    From the last two, a checkpoint or SavedModel is made first and kept as `out/source`; for that,
    a user's module is called with `example` and `inputs`. `to` may also name an exporter. If the
    exporter takes another format than that of `source`, the model is first exported to that format,
    via `via` if given, in a temporary directory; the proof compares with `source`. `passes` rewrite
    the ONNX graph after its weights are proved and before anything is made from it. Outputs are
    compared after the passes, on `inputs` as in `bench`. If a GPU runtime for the target cannot run
    here, the outputs are those of the variant that the target was made from, and the proof says so.
    `timeout_s` limits reading a file and each conversion: 300 s and 3600 s by default.

    Raises ParityError if a weight is missing or altered, or if an output is not the model's; the
    variant that failed, and the inputs on which its outputs did, are then written to the new
    directory `keep_failed` if it is given. Raises SourceError and IntegrityError for the source,
    UnknownNameError for a target or pass, UsageError for a target that cannot be made from the
    source, OutputExistsError. If it raises, nothing is written to `out`.
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
            files.prepare("torch")  # the most common framework of user code
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
        stage = _ExportStep(
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
        outputs = check_outputs.compare(
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
class _ExportStep:
    """A variant on the route from `given`, with the proof of its weights.

    `changes` are the changes by passes. `runs` is the variant whose outputs are compared, on the
    runtime `checked_with`: `artifact`, or the last variant before it that can run here if it
    cannot. `unable` is the reason why it cannot.
    """

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
        """Statement that the outputs are those of an earlier variant; None if they are its own."""
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
    ) -> _ExportStep:
        """Return the stage that an exporter makes from this one in `place`, or a copy without one.

        An ONNX graph is then rewritten by the passes, once. `home` is the final directory, to which
        the paths of parents are relative. Raises ParityError if a weight is missing or altered. A
        file made from a rewritten graph is compared with that graph, and the proof stays that of
        the graph before the passes.
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
            _saved(place, self.artifact, self.given, format, exported, home)  # for --keep-failed
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
        """Run the passes on a graph, and return what each changed and a description of the result.

        The inputs and outputs stay in the order of `signature`, which has the layouts and names of
        axes that the file lacks; the passes may only fix extents.
        """
        changes, precision, found = self.files.rewrite(self.artifact, passes, path)
        after = Signature(
            inputs=_with_layouts(found.inputs, signature.inputs),
            outputs=_with_layouts(found.outputs, signature.outputs),
        )
        return changes, replace(exported, precision=precision, signature=after)

    def save(self, directory: Path) -> None:
        """Write the manifest again, over all files that are in `directory` now."""
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
    """Copy the variant in `failed` to `keep` if the block raises ParityError.

    The checkpoint or SavedModel of user code in `made`, if there is one, and `feeds` are copied as
    well. The error raised then names `keep` and the command that repeats the comparison. Without
    `keep`, its hint mentions --keep-failed.
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
    """Return an array that NumPy stores without pickle; strings are converted."""
    return array.astype(str) if array.dtype == object else array


FLAGS = {  # of options whose flag has another name
    "compute_capabilities": "--compute-capability",
    "profiles": "--profile",
}


def _route(
    given: Artifact, to: str, via: str | None, passes: Sequence[str], *, made: bool
) -> list[str | None]:
    """Return the names of the exporters in order.

    None stands for a copy, on which the passes run, or which is all that is needed if the source
    was `made` from user code in the format `to`. Raises UsageError if there is nothing to do.
    """
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
    """Write the manifest of what an exporter wrote from `source`, and return the artifact."""
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
    """Return the tensors that a file declares, with the layouts and names of axes from `known`."""
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
    """Copy all files of an artifact except its proof, under the same names."""
    for name in artifact.files:
        if name != PROOF:
            artifact.copy_file(name, directory / name)
    return Exported(entry=artifact.entry, precision=artifact.precision, options=artifact.options)


def _require_passes(
    passes: Sequence[str], to: str, given: Artifact, routes: Sequence[Route]
) -> None:
    """Raise UsageError for passes if the route has no ONNX graph.

    Raises UnknownNameError for an unknown pass, and UsageError for a number that it does not take.
    """
    if passes:
        with toolkit_imports():
            from exporters.passes.rewriting import parse

        parse(passes)
    if passes and Format.ONNX not in (given.format, *(route.format for route in routes)):
        raise UsageError(
            f"Got passes {', '.join(passes)} for {to}, which is not made of an ONNX graph.",
            hint="Leave --passes out, or export to onnx.",
        )


def _require_options(options: ExportOptions, to: str, routes: Sequence[Route]) -> None:
    """Raise UsageError for an option that has no effect on this route."""
    heeded = {name for route in routes for name in route.options}
    if ignored := options.given().keys() - heeded:
        named = ", ".join(FLAGS.get(name, f"--{name}") for name in sorted(ignored))
        raise UsageError(
            f"Got {named}, which has no effect on an export to {to} from this source.",
            hint="Leave it out.",
        )


def _require_builder(given: Artifact, routes: Sequence[Route]) -> None:
    """Raise UnknownNameError if the exporter's framework cannot build a checkpoint's family.

    A user's torch module is a program, which needs no builder in torch and has none in any other
    framework; for the latter, raises SourceError.
    """
    first = next(iter(routes), None)
    if given.format is not Format.CHECKPOINT or first is None or first.framework is None:
        return
    if PROGRAM not in given.files:
        models.FAMILIES.create(given.model.family).builders.entry(first.framework)
    elif first.framework != "torch":
        raise SourceError(
            f"{given.model.name!r} is a user model in torch, and an export to {first.format} "
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
