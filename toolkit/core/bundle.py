"""A bundle: the form of a model that was chosen, how it is run, and on what evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from toolkit.core.artifact import Artifact
from toolkit.core.documents import read_document
from toolkit.core.errors import IntegrityError
from toolkit.core.session import SessionOptions

BUNDLE_FILE = "bundle.json"
SCHEMA = "toolkit.bundle/1"
MODEL = "model"  # the folder of the artifact


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What lies in a bundle's directory. `batch` is the one that it was chosen for."""

    artifact: Artifact
    runtime: str
    options: SessionOptions
    batch: int
    evidence: Mapping[str, Any]

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Raises SourceError for what is no bundle, IntegrityError for one that was altered."""
        document = read_document(directory / BUNDLE_FILE, SCHEMA)
        artifact = Artifact.load(directory / MODEL)
        artifact.verify()
        if artifact.digest != document["artifact_digest"]:
            raise IntegrityError(
                f"{directory / MODEL} is not the model that {BUNDLE_FILE} was written for.",
                hint="Put the whole bundle back, or run `toolkit optimize` again.",
            )
        return cls(
            artifact=artifact,
            runtime=document["runtime"],
            options=SessionOptions(**document["options"]),
            batch=document["batch"],
            evidence=document["evidence"],
        )


def is_bundle(path: Path) -> bool:
    return (path / BUNDLE_FILE).is_file()
