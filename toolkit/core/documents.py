"""JSON documents: canonical encoding, schema version, producer, digest.

A document is an object with `schema` (`toolkit.<kind>/<version>`), `producer`, `digest` and its
own keys beside them. The digest is the SHA-256 of the canonical encoding of all the rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.core.errors import IntegrityError, PluginError, SourceError
from toolkit.core.files import digest_bytes, write_atomically
from toolkit.core.version import VERSION

Json = dict[str, Any]


def canonical(value: Any) -> bytes:
    """The one encoding of a JSON value: sorted keys, no spaces, UTF-8, no NaN or infinity."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def plain(value: Any) -> Any:
    """`value` as JSON has it: NumPy's scalars as Python's, NaN and infinity as None (unknown).

    Raises PluginError for a key that is not a string: it would come back as another.
    """
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise PluginError(f"A document has the key {key!r}.", hint="Use strings as keys.")
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def seal(schema: str, body: Mapping[str, Any]) -> Json:
    """`body` as a document: with its schema, producer and digest."""
    if reserved := {"schema", "producer", "digest"} & set(body):
        raise PluginError(
            f"The body of a {schema} document has the keys {sorted(reserved)}.",
            hint="Choose other keys: these are the document's own.",
        )
    document = {
        **plain(body),
        "schema": schema,
        "producer": {"tool": "toolkit", "version": VERSION},
    }
    return {**document, "digest": digest_bytes(canonical(document))}


def write_document(path: Path, document: Mapping[str, Any], *, indent: int | None = 1) -> None:
    """Writes a sealed document, atomically."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode() + b"\n")


def read_document(path: Path, schema: str) -> Json:
    """Reads a document and checks its schema and digest.

    Raises SourceError for a file that is not such a document, IntegrityError for one that was
    altered since it was written.
    """
    try:
        document = json.loads(path.read_bytes())
        rest = {key: value for key, value in document.items() if key != "digest"}
        got = digest_bytes(canonical(rest))
    except AttributeError:
        document = None
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(
            f"Could not read {path} as a {schema} document: {error}.",
            hint="Check the path; if it is right, make the file again.",
        ) from error
    found = document.get("schema") if document is not None else None
    if found != schema:
        raise SourceError(
            f"{path} is a document of schema {found!r}, expected {schema!r}.",
            hint="Check the path, and that this version of the toolkit wrote it.",
        )
    stated = document.get("digest")
    if stated != got:
        raise IntegrityError(
            f"{path} has digest {got}, but states {stated}.",
            hint="The file was altered after it was written: restore it, or make it again.",
        )
    return dict(document)
