"""Artifacts and checkpoints: directories with a manifest of their content and origin."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self, TypedDict

import numpy as np
from msgspec import Meta

from toolkit.core.codec import Count, Digest, FileName, Size, holding
from toolkit.core.documents import read_as, seal, write_document
from toolkit.core.errors import IntegrityError, SourceError
from toolkit.core.files import (
    FileRecord,
    copy_file,
    record_files,
    sync,
    verify_files,
    wrapping_os_errors,
)
from toolkit.core.specs import ModelSpec, Signature

MANIFEST = "manifest.json"
ARTIFACT_SCHEMA = "toolkit.artifact/2"
CHECKPOINT_SCHEMA = "toolkit.checkpoint/2"
WEIGHTS = "weights.safetensors"
RESUME = "resume.safetensors"
SOURCE = "source"  # in an artifact: its source model, if that had no file
PROGRAM = "program.pt2"  # a user model, exported so that it opens without its code
EXAMPLE = "example.safetensors"  # integer and boolean example inputs of the model


class Format(StrEnum):
    """File format that a runtime opens."""

    CHECKPOINT = "checkpoint"
    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"  # a .pt2 archive of torch.export
    KERAS = "keras"  # a .keras file
    SAVEDMODEL = "savedmodel"  # a directory with saved_model.pb and its variables
    LITERT = "litert"  # a .tflite file
    AOTINDUCTOR = "aotinductor"  # a .pt2 archive with compiled code
    OPENVINO = "openvino"  # an .xml graph with its .bin beside it
    TENSORRT = "tensorrt"  # an .engine, next to the ONNX graph it was built from
    TENSORRT_RTX = "tensorrt-rtx"  # the same for TensorRT-RTX, a separate library
    TRIPY = "tripy"  # an executable of NVIDIA Tripy, with its weights


ParentPath = Annotated[str, Meta(pattern=r"^[^/\\\x00-\x1f\x7f][^\\\x00-\x1f\x7f]*\Z")]


@dataclass(frozen=True, kw_only=True)
class Parent:
    """Source of an artifact, identified by its digest, with its path at the time.

    `path` is relative to the directory of the child, so that both can be moved together.
    """

    kind: str
    digest: Digest
    path: ParentPath


_Pass = TypedDict("_Pass", {"pass": str, "operators": dict[str, tuple[Size, Size]]})


class _Options(TypedDict, total=False):
    passes: list[_Pass]
    batches: list[Count]
    cpu_features: list[str]


class _Training(TypedDict, total=False):
    preprocessing: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Model in a format that a runtime can open.

    `entry` is the file in `directory` that the runtime reads. `digest` is that of the manifest,
    which has the digests of all other files.
    """

    model: ModelSpec
    format: Format
    precision: str
    signature: Signature
    directory: Path
    entry: FileName
    digest: Digest
    files: Mapping[FileName, FileRecord]
    parents: tuple[Parent, ...] = ()
    options: Mapping[str, Any] = holding(_Options, default_factory=dict)

    @property
    def path(self) -> Path:
        """File that a runtime reads."""
        return self.directory / self.entry

    @property
    def size_bytes(self) -> int:
        """Total size of all files."""
        return sum(record.size_bytes for record in self.files.values())

    def verify(self) -> None:
        """Raise IntegrityError unless every file matches the manifest."""
        if self.entry not in self.files:
            raise IntegrityError(
                f"The manifest of {self.directory} names {self.entry} as its entry, and has no "
                "record of it.",
                hint="Export the model again.",
            )
        verify_files(self.directory, self.files)

    def copy_file(self, name: str, target: Path) -> None:
        """Copy one of the files to `target`.

        Raises IntegrityError for a symbolic link that leads out of the directory. The entry of an
        artifact without a manifest is exempt, since the user named that file.
        """
        named = name == self.entry and not (self.directory / MANIFEST).is_file()
        source = self.path.resolve() if named else self.directory / name
        directory = source.parent if named else self.directory
        copy_file(directory, source.relative_to(directory).as_posix(), target)

    def place_of(self, parent: Parent) -> Path:
        """Return the recorded path of a parent: the directory of its manifest, or its file."""
        return Path(os.path.normpath(self.directory / parent.path))

    def parent_directory(self) -> Path | None:
        """Return the recorded directory of the parent checkpoint, None if there is none."""
        of_kind = (parent for parent in self.parents if parent.kind == Format.CHECKPOINT)
        parent = next(of_kind, None)
        return None if parent is None else self.place_of(parent)

    def parent_checkpoint(self) -> Checkpoint:
        """Load the checkpoint that the artifact was made from.

        Raises SourceError if there is none or it is no longer in its directory, IntegrityError if
        the directory has another checkpoint.
        """
        place = self.parent_directory()
        if place is None:
            raise SourceError(
                f"{self.path} was not made from a checkpoint.",
                hint="Name an artifact that `toolkit export` made.",
            )
        checkpoint = Checkpoint.load(place)
        if checkpoint.digest not in {parent.digest for parent in self.parents}:
            raise IntegrityError(
                f"The checkpoint at {place} has digest {checkpoint.digest}, but "
                f"{self.directory} was made from {self.parents[0].digest}.",
                hint="Put the original checkpoint back, or export this one again.",
            )
        return checkpoint

    @classmethod
    def save(
        cls,
        directory: Path,
        *,
        model: ModelSpec,
        format: Format,
        precision: str,
        signature: Signature,
        entry: str,
        parents: tuple[Parent, ...],
        options: Mapping[str, Any],
    ) -> Self:
        """Write the manifest of the files in `directory`, and load the artifact."""
        body = {
            "model": model,
            "format": format,
            "precision": precision,
            "signature": signature,
            "entry": entry,
            "parents": parents,
            "options": options,
        }
        _write_manifest(directory, ARTIFACT_SCHEMA, body)
        return cls.load(directory)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the manifest; `verify` checks the files. Raises SourceError or IntegrityError."""
        place = str(directory.resolve())
        return read_as(directory / MANIFEST, ARTIFACT_SCHEMA, cls, directory=place)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Trained model: its spec, and its weights by name in a safetensors file.

    `training` is the record of the training run: recipe, history, data and its preprocessing. The
    directory can also have the state from which the training can be resumed.
    """

    spec: ModelSpec
    directory: Path
    digest: Digest
    files: Mapping[FileName, FileRecord]
    seed: Size
    epoch: Size
    metrics: Mapping[str, float | None]
    training: Mapping[str, Any] = holding(_Training)

    def verify(self) -> None:
        """Raise IntegrityError unless every file matches the manifest."""
        if WEIGHTS not in self.files:
            raise IntegrityError(
                f"The manifest of {self.directory} has no record of {WEIGHTS}.",
                hint="Train the model again.",
            )
        verify_files(self.directory, self.files)

    def weights(self) -> dict[str, np.ndarray]:
        """Return all tensors, sorted by name. Raises IntegrityError if a file was altered."""
        from toolkit.core.tensors import load_tensors

        self.verify()
        return dict(sorted(load_tensors(self.directory / WEIGHTS).items()))

    def resume_state(self) -> dict[str, np.ndarray]:
        """Return the state from which the trainer resumes, under the trainer's names.

        Raises SourceError if the checkpoint has none, IntegrityError if a file was altered.
        """
        from toolkit.core.tensors import load_tensors

        self.verify()
        if RESUME not in self.files:
            raise SourceError(
                f"{self.directory} has no {RESUME}: training cannot go on from it.",
                hint="Train the model again.",
            )
        return load_tensors(self.directory / RESUME)

    def artifact(self) -> Artifact:
        """Return the checkpoint as an artifact, for the runtimes of its framework."""
        return Artifact(
            model=self.spec,
            format=Format.CHECKPOINT,
            precision="float32",
            signature=self.spec.signature,
            directory=self.directory,
            entry=WEIGHTS,
            digest=self.digest,
            files=self.files,
        )

    @classmethod
    def save(
        cls,
        directory: Path,
        *,
        spec: ModelSpec,
        weights: Mapping[str, np.ndarray],
        seed: int,
        epoch: int,
        metrics: Mapping[str, float | None],
        training: Mapping[str, Any],
        resume: Mapping[str, np.ndarray] | None = None,
        example: Mapping[str, np.ndarray] | None = None,
    ) -> Self:
        """Write weights, resume state, example inputs and manifest, and load the checkpoint."""
        _write_tensors(directory / WEIGHTS, weights)
        if resume is not None:
            _write_tensors(directory / RESUME, resume)
        if example:
            _write_tensors(directory / EXAMPLE, example)
        body = {
            "spec": spec,
            "seed": seed,
            "epoch": epoch,
            "metrics": metrics,
            "training": training,
        }
        _write_manifest(directory, CHECKPOINT_SCHEMA, body)
        return cls.load(directory)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the manifest; `verify` checks the files. Raises SourceError or IntegrityError."""
        place = str(directory.resolve())
        return read_as(directory / MANIFEST, CHECKPOINT_SCHEMA, cls, directory=place)


def parents_of(child_directory: Path, source: Artifact) -> tuple[Parent, ...]:
    """Return the parents of an artifact made from `source`: `source`, then its own parents.

    Their paths are relative to `child_directory`, the future directory of the artifact.
    """
    place = source.directory if (source.directory / MANIFEST).is_file() else source.path
    known = [(source.format.value, source.digest, place)]
    known += [(p.kind, p.digest, source.place_of(p)) for p in source.parents]
    child = child_directory.resolve()
    return tuple(
        Parent(kind=kind, digest=digest, path=Path(os.path.relpath(path, child)).as_posix())
        for kind, digest, path in known
    )


def _write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file without copying contiguous tensors in memory."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with wrapping_os_errors(f"write {path}"):
        try:
            save_file(contiguous, path)
        except SafetensorError as error:
            raise OSError(str(error).rstrip(".")) from error
        path.chmod(0o644)
        sync(path)


def _write_manifest(directory: Path, schema: str, body: Mapping[str, Any]) -> None:
    records = record_files(directory, apart=[SOURCE])
    records.pop(MANIFEST, None)
    document = seal(schema, {**body, "files": records})
    write_document(directory / MANIFEST, document)
