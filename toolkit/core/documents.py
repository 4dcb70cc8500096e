"""JSON documents with a schema version, producer and digest, and their canonical encoding.

A document is a JSON object with the keys of its content, `schema` (`toolkit.<kind>/<version>`),
`producer` and `digest`. The digest is the SHA-256 of the canonical encoding of the document without
`digest`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from toolkit.core.codec import LARGEST, decode, encode
from toolkit.core.errors import IntegrityError, PluginError, SourceError
from toolkit.core.files import digest_bytes, write_atomically
from toolkit.core.version import VERSION

Json = dict[str, Any]
T = TypeVar("T")

MOST_DEPTH = 64


def canonical(value: Any) -> bytes:
    """Return the canonical encoding of a JSON value: sorted keys, no spaces, UTF-8.

    Raises ValueError for NaN and infinity.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def plain(value: Any) -> Any:
    """Convert a value to JSON types: NumPy scalars to Python's, NaN and infinity to None (unknown).

    Raises PluginError for a key that is not a string, since JSON would turn it into one.
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
    """Return `body` as a document, with schema, producer and digest.

    Raises PluginError if `body` has one of the reserved keys, is nested more than MOST_DEPTH deep
    or has an integer of more than 64 bits.
    """
    if reserved := {"schema", "producer", "digest"} & set(body):
        raise PluginError(
            f"The body of a {schema} document has the keys {sorted(reserved)}.",
            hint="Choose other keys: these are the document's own.",
        )
    document = {
        **plain(encode(body)),
        "schema": schema,
        "producer": {"tool": "toolkit", "version": VERSION},
    }
    try:
        _check(document, MOST_DEPTH)
    except ValueError as error:
        raise PluginError(
            f"A {schema} document cannot be stored: {error}.", hint="Store less in it."
        ) from error
    return {**document, "digest": digest_bytes(canonical(document))}


def write_document(path: Path, document: Mapping[str, Any], *, indent: int | None = 1) -> None:
    """Write a sealed document to a file atomically."""
    write_atomically(path, encoded(document, indent=indent))


def encoded(document: Mapping[str, Any], *, indent: int | None = 1) -> bytes:
    """Return the content of a document's file."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def read_document(path: Path, schema: str) -> Json:
    """Read a document, and check its schema and digest.

    Raises SourceError if the file is not a document of that schema, IntegrityError if its digest is
    wrong, which means that it was altered.
    """
    try:
        document = _parsed(path)
        rest = {key: value for key, value in document.items() if key != "digest"}
        got = digest_bytes(canonical(rest))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(
            f"Could not read {path} as a {schema} document: {error}.",
            hint="Check the path; if it is right, make the file again.",
        ) from error
    if (found := document.get("schema")) != schema:
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
    return document


def read_as(path: Path, schema: str, cls: type[T], **more: Any) -> T:
    """Read a document as an instance of `cls`; `more` are fields that the document does not store.

    Raises the errors of `read_document`, and SourceError for a field that does not fit `cls`.
    """
    return decode({**read_document(path, schema), **more}, cls, path)


def schema_of(path: Path) -> object:
    """Return the schema that a document states, None if the file cannot be read."""
    try:
        return _parsed(path).get("schema")
    except (OSError, ValueError, RecursionError):
        return None


def _parsed(path: Path) -> Json:
    """Return the JSON object in a file. Raises OSError, ValueError or RecursionError.

    The result is safe for all further processing: it has no duplicate keys, its integers fit into
    64 bits, and it is nested at most MOST_DEPTH deep.
    """
    document = json.loads(path.read_bytes(), object_pairs_hook=_object)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    _check(document, MOST_DEPTH)
    return document


def _object(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in found if names.count(n) > 1)!r} is there twice")
    return found


def _check(value: Any, depth: int) -> None:
    if not depth:
        raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            _check(item, depth - 1)
        elif isinstance(item, int) and not -LARGEST <= item <= LARGEST:
            raise ValueError("it has an integer of more than 64 bits")
