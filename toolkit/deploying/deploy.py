"""Deploy a bundle or an artifact as a Triton model repository or as a standalone folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.core.artifact import Artifact, Format
from toolkit.core.bundle import Bundle, is_bundle
from toolkit.core.documents import Json
from toolkit.core.errors import UsageError, unknown_name
from toolkit.core.files import new_directory, refuse_existing
from toolkit.core.session import SessionOptions
from toolkit.measuring.machine.environment import session_options
from toolkit.sources.isolated_backend import READING_S, sharing_files
from toolkit.sources.resolve import open_artifact

TARGETS = ("triton", "folder")


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """Model to deploy: its artifact, how to run it, and the batch size that it was chosen for.

    `evidence` has the measurements behind that choice, and `bundle` is the directory of the bundle.
    For an artifact without a bundle, `bundle` and `runtime` are None and `evidence` is empty.
    """

    artifact: Artifact
    runtime: str | None
    options: SessionOptions
    batch: int
    evidence: Mapping[str, Any]
    bundle: Path | None


@dataclass(frozen=True, kw_only=True)
class Deployment:
    target: str
    directory: Path
    artifact_digest: str
    told: tuple[str, ...]

    def to_json(self) -> Json:
        return {
            "schema": "toolkit.deploy/1",
            "to": self.target,
            "directory": str(self.directory),
            "artifact_digest": self.artifact_digest,
            "told": list(self.told),
        }


@sharing_files
def deploy(
    source: str | os.PathLike[str],
    *,
    to: str,
    out: str | os.PathLike[str],
    name: str | None = None,
    max_batch: int | None = None,
    instances: int | None = None,
    timeout_s: float = READING_S,
) -> Deployment:
    """Deploy `source`, a bundle or an artifact, to the new directory `out`.

    `to` is "triton" for a Triton Inference Server model repository with one model, `name`, or
    "folder" for the bundle with samples to check it. `max_batch` and `instances` are for Triton
    only, and replace the values derived from the bundle's evidence. `timeout_s` limits each read of
    a model file.

    Raise SourceError, IntegrityError or OutputExistsError; UsageError if the target does not
    support the format or an option; and UnavailableError if packages that it needs are missing.
    """
    target = Path(out)
    refuse_existing(target)
    if to not in TARGETS:
        raise unknown_name("target of a deployment", to, TARGETS)
    deployed = _deployed(Path(source))
    deployed.artifact.verify()
    with new_directory(target) as partial:
        if to == "triton":
            from toolkit.deploying.triton import write_repository

            told = write_repository(
                partial, deployed, _model_name(name, deployed), max_batch, instances
            )
        else:
            if name or max_batch or instances:
                raise UsageError(
                    "Got a name, batch or instances for a folder, which has none of them.",
                    hint="Leave them out, or deploy to triton.",
                )
            from toolkit.deploying.folder import write_folder

            told = write_folder(partial, deployed)
    return Deployment(
        target=to, directory=target, artifact_digest=deployed.artifact.digest, told=tuple(told)
    )


def _deployed(source: Path) -> Deployed:
    if is_bundle(source):
        bundle = Bundle.load(source)
        return Deployed(
            artifact=bundle.artifact,
            runtime=bundle.runtime,
            options=bundle.options,
            batch=bundle.batch,
            evidence=bundle.evidence,
            bundle=source,
        )
    artifact = open_artifact(source)
    if artifact.format is Format.CHECKPOINT:
        raise UsageError(
            f"{source} is a checkpoint, which no server runs.",
            hint="Export it first, or let `toolkit optimize` choose a form: its bundle is deployed "
            "with the options that it was measured with.",
        )
    if not artifact.signature.inputs:
        raise UsageError(
            f"{source} takes no inputs: its outputs are always the same.",
            hint="Store the outputs of `toolkit.load(...).run({})` instead of serving the model.",
        )
    fixed = artifact.signature.batch_axis
    return Deployed(
        artifact=artifact,
        runtime=None,
        options=session_options(None),
        batch=fixed if isinstance(fixed, int) else 1,
        evidence={},
        bundle=None,
    )


def _model_name(name: str | None, deployed: Deployed) -> str:
    """Return the model's name in the repository. Raise UsageError if it is no valid folder name."""
    found = name or deployed.artifact.model.name
    if not found.replace("-", "").replace("_", "").replace(".", "").isalnum() or found[0] == ".":
        raise UsageError(
            f"Got the model name {found!r}, expected letters, digits, -, _ and dots.",
            hint="Give --name.",
        )
    return found
