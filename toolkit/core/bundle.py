"""Bundles: a chosen variant of a model, how to run it, and the evidence for the choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypedDict

from toolkit.core.artifact import Artifact
from toolkit.core.codec import Cores, Count, Digest, Nanoseconds, holding
from toolkit.core.documents import read_as
from toolkit.core.errors import IntegrityError
from toolkit.core.session import SessionOptions

BUNDLE_FILE = "bundle.json"
SCHEMA = "toolkit.bundle/1"
MODEL = "model"  # the directory of the artifact


class _Processor(TypedDict, total=False):
    container_cores: Cores | None
    available_cores: Cores | None


class _Forward(TypedDict, total=False):
    median_ns: Nanoseconds | None


class _Evidence(TypedDict, total=False):
    cpu: _Processor | None
    forward: _Forward | None


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """Part of `bundle.json` that the toolkit reads."""

    artifact_digest: Digest
    runtime: str
    options: SessionOptions
    batch: Count
    evidence: Mapping[str, Any] = holding(_Evidence)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Content of a bundle's directory. `batch` is the batch size that it was chosen for."""

    artifact: Artifact
    runtime: str
    options: SessionOptions
    batch: int
    evidence: Mapping[str, Any]

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read and verify a bundle.

        Raises SourceError if it is not a bundle, IntegrityError if it was altered.
        """
        stored = read_as(directory / BUNDLE_FILE, SCHEMA, _Stored)
        artifact = Artifact.load(directory / MODEL)
        artifact.verify()
        if artifact.digest != stored.artifact_digest:
            raise IntegrityError(
                f"{directory / MODEL} is not the model that {BUNDLE_FILE} was written for.",
                hint="Put the whole bundle back, or run `toolkit optimize` again.",
            )
        return cls(
            artifact=artifact,
            runtime=stored.runtime,
            options=stored.options,
            batch=stored.batch,
            evidence=stored.evidence,
        )


def is_bundle(path: Path) -> bool:
    return (path / BUNDLE_FILE).is_file()
