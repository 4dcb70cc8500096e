"""Writer of bundles, whose program needs NumPy and the runtime, but not the toolkit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.core.artifact import MANIFEST, Artifact, Checkpoint, Format
from toolkit.core.bundle import BUNDLE_FILE, MODEL, SCHEMA
from toolkit.core.documents import Json, seal, write_document
from toolkit.core.errors import ToolkitError
from toolkit.core.files import new_directory, replaced_directory, write_atomically
from toolkit.core.measurement import Scope
from toolkit.measuring.figures.summary import scope_figures
from toolkit.measuring.machine.environment import describe_environment
from toolkit.optimizing.programs import PROGRAMS, REQUIREMENTS
from toolkit.optimizing.rounds import CandidateResult

BUNDLE = "bundle"
PROGRAM = "run.py"
PACKAGES = "requirements.txt"


def write_bundle(
    directory: Path,
    artifact: Artifact,
    chosen: CandidateResult,
    preprocessing: Mapping[str, Any] | None,
) -> None:
    """Write or replace the bundle `directory`; `artifact` is the one that `chosen` ran."""
    runtime = chosen.candidate.runtime
    making = replaced_directory if directory.exists() else new_directory
    with making(directory) as partial:
        artifact = _copied(artifact, partial / MODEL)
        write_document(partial / BUNDLE_FILE, seal(SCHEMA, _body(artifact, chosen, preprocessing)))
        write_atomically(partial / PROGRAM, PROGRAMS[runtime].encode())
        provenance = None if chosen.row is None else chosen.row.provenance
        version = None if provenance is None else provenance.version
        write_atomically(partial / PACKAGES, _requirements(runtime, version).encode())


def _copied(artifact: Artifact, place: Path) -> Artifact:
    """Copy the artifact to `place`, with a new manifest if it is a user file without one."""
    ours = (artifact.directory / MANIFEST).is_file()
    for name in (*artifact.files, *([MANIFEST] if ours else [])):
        artifact.copy_file(name, place / name)
    if ours:
        return artifact
    return Artifact.save(
        place,
        model=artifact.model,
        format=artifact.format,
        precision=artifact.precision,
        signature=artifact.signature,
        entry=artifact.entry,
        parents=(),
        options={},
    )


def _body(
    artifact: Artifact, chosen: CandidateResult, preprocessing: Mapping[str, Any] | None
) -> Json:
    row = chosen.row
    assert row is not None
    forward = row.measurement(Scope.FORWARD)
    environment = describe_environment()
    return {
        "runtime": row.runtime,
        "options": chosen.candidate.options,
        "entry": f"{MODEL}/{artifact.entry}",
        "artifact_digest": artifact.digest,
        "signature": artifact.signature,
        "batch": row.batch,
        "preprocessing": preprocessing and dict(preprocessing),
        "evidence": {
            "parity": row.parity,
            "accuracy": chosen.verdict,
            "forward": forward and scope_figures(forward, row.batch),
            "ratio_to_the_model": chosen.ratio,
            "ratio_ci95": chosen.interval and list(chosen.interval),
            "peak_rss_bytes": row.peak_rss_bytes,
            "provenance": row.provenance,
            "cpu": environment["cpu"],
            "gpus": environment["gpus"],
            "versions": environment["versions"],
        },
    }


def _requirements(runtime: str, version: str | None) -> str:
    """Return the text of requirements.txt, with the runtime pinned to the measured version."""
    package, *others = REQUIREMENTS[runtime]
    pinned = f"=={version.partition('-')[0].partition('+')[0]}" if version else ""
    return "\n".join(["numpy", f"{package}{pinned}", *others, ""])


def preprocessing_of(artifact: Artifact) -> Json | None:
    """Return the preprocessing of the samples that the model was trained on, None if unknown."""
    place = (
        artifact.directory if artifact.format is Format.CHECKPOINT else artifact.parent_directory()
    )
    try:
        found = None if place is None else Checkpoint.load(place).training.get("preprocessing")
    except ToolkitError:
        return None
    return found and dict(found)
