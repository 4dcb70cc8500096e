"""Open what the user names as a model: an artifact, a checkpoint, a model file or user code."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path

from exporters import SUFFIXES
from toolkit.core.artifact import (
    CHECKPOINT_SCHEMA,
    MANIFEST,
    Artifact,
    Checkpoint,
    Format,
)
from toolkit.core.bundle import MODEL, is_bundle
from toolkit.core.codec import FileName, decode
from toolkit.core.documents import canonical, schema_of
from toolkit.core.errors import IntegrityError, SourceError, UsageError
from toolkit.core.files import FileRecord, digest_bytes, digest_file, wrapping_os_errors
from toolkit.core.specs import ModelSpec
from toolkit.core.usercode import is_user_code
from toolkit.sources.capture import Example, is_in_no_file
from toolkit.sources.inputs import InputRequest
from toolkit.sources.isolated_backend import Files, open_files

Source = str | os.PathLike[str]

SAVED_MODEL = "saved_model.pb"
EXPECTED = (
    "Give a directory that `toolkit export` or `toolkit train` wrote, or the path of a file: "
    ".onnx, .pt2, .keras, .tflite, OpenVINO's .xml, or the directory of a SavedModel."
)


def open_artifact(source: Source) -> Artifact:
    """Open the artifact or checkpoint in a directory, or a model file without a manifest.

    The files of a directory are checked against the digests in its manifest. Raises SourceError for
    any other path, IntegrityError for files that were altered.
    """
    path = Path(source)
    if path.name == SAVED_MODEL and path.is_file():
        path = path.parent
    if path.suffix in SUFFIXES and path.is_file():
        return _foreign(path, SUFFIXES[path.suffix])
    if path.is_dir() and (path / SAVED_MODEL).is_file() and not (path / MANIFEST).is_file():
        return _foreign(path, Format.SAVEDMODEL)
    if path.is_dir() and (path / MANIFEST).is_file():
        trained = schema_of(path / MANIFEST) == CHECKPOINT_SCHEMA
        artifact = Checkpoint.load(path).artifact() if trained else Artifact.load(path)
        artifact.verify()
        return artifact
    raise _not_a_source(path)


def open_source(
    source: Source, example: Example | None, request: InputRequest, directory: Path, files: Files
) -> tuple[Artifact, InputRequest]:
    """Open a source as `open_artifact`; first write user code or a family to the new `directory`.

    A user's torch module is captured with the inputs of `request`. The returned request then fits
    the artifact: it has no shapes, and dynamic axes without an extent, except the batch, have that
    of the example. Also raises what `toolkit.sources.capture.capture` raises.
    """
    if not is_in_no_file(source):
        if example is not None:
            raise UsageError(
                f"Got an example or --dynamic for {source}, which is a file.",
                hint="Leave them out; they are for user modules in torch.",
            )
        return open_artifact(source), request
    directory.mkdir()
    example = replace(example or Example(), inputs=request.random, file=request.file)
    extents = dict(files.capture(os.fspath(source), example, directory))
    artifact = open_artifact(directory)
    if artifact.format is not Format.CHECKPOINT or not is_user_code(os.fspath(source)):
        return artifact, request
    extents.pop(str(artifact.signature.batch_axis), None)
    random = {name: replace(asked, shape=None) for name, asked in request.random.items()}
    return artifact, replace(request, random=random, dims={**extents, **request.dims})


def open_checkpoint(source: Source) -> Checkpoint:
    """Open the checkpoint in a directory, and check its files.

    Raises SourceError, IntegrityError.
    """
    path = Path(source)
    if not (path / MANIFEST).is_file():
        raise _not_a_source(path, "Give a directory that `toolkit train` wrote.")
    checkpoint = Checkpoint.load(path)
    checkpoint.verify()
    return checkpoint


def candidates(artifact: Artifact) -> tuple[Artifact, ...]:
    """Return the artifact, then the variants it was made from that still exist, nearest first.

    A runtime opens the first whose format it accepts. Raises IntegrityError or SourceError for a
    variant that is damaged or was replaced by another.
    """
    found = [artifact]
    for parent in artifact.parents:
        place = artifact.place_of(parent)
        if not (place.is_file() or (place / MANIFEST).is_file()):
            continue
        form = open_artifact(place)
        if form.digest != parent.digest:
            raise IntegrityError(
                f"The {parent.kind} at {place} has digest {form.digest}, but {artifact.directory} "
                f"was made from {parent.digest}.",
                hint="Put the original back, or export it again.",
            )
        found.append(form)
    return tuple(found)


def absent_parent(artifact: Artifact) -> str | None:
    """Return a warning if the checkpoint that the artifact was made from is missing, else None."""
    place = artifact.parent_directory()
    if place is None or (place / MANIFEST).is_file():
        return None
    return (
        f"The checkpoint that {artifact.directory} was made from is not at {place}: the reference "
        "is ONNX Runtime without optimisation, on the nearest ONNX form. Put the checkpoint back."
    )


def _foreign(path: Path, format: Format) -> Artifact:
    """Return a model file without a manifest as an artifact, with the signature it declares."""
    with open_files() as files:
        found = files.describe(format, path)
    # The directory of a link rather than of its target: the data files are beside the link.
    directory = found.directory.resolve()
    with wrapping_os_errors(f"read {path}"):
        records = {
            name: FileRecord(
                digest=digest_file(directory / name), size_bytes=(directory / name).stat().st_size
            )
            for name in decode(list(found.files), list[FileName], f"the file names of {path}")
        }
    return Artifact(
        model=ModelSpec(name=path.stem, family=format, framework=format, signature=found.signature),
        format=format,
        precision=found.precision,
        signature=found.signature,
        directory=directory,
        entry=found.entry,
        digest=digest_bytes(canonical({name: record.digest for name, record in records.items()})),
        files=records,
    )


def _not_a_source(path: Path, expected: str = EXPECTED) -> SourceError:
    if is_in_no_file(path):
        return SourceError(
            f"{path} is not a file.",
            hint="Only `toolkit export` and `toolkit bench` make a model from code, or a family: "
            "export it first.",
        )
    if not path.exists():
        import_isolation = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, import_isolation, n=1)
        guess = f"Did you mean {path.parent / near[0]}? " if near else ""
        return SourceError(f"{path} does not exist.", hint=guess + expected)
    if is_bundle(path):
        return SourceError(
            f"{path} is a bundle.", hint=f"Name the model in it: {path / MODEL}; or toolkit.load()."
        )
    if path.is_dir():
        return SourceError(f"{path} is a directory without a {MANIFEST}.", hint=expected)
    return SourceError(f"{path} is a file of no known kind.", hint=expected)
