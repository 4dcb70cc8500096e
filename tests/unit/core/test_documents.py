"""JSON documents: one encoding, and no change goes unseen."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.codec import LARGEST
from toolkit.core.documents import MOST_DEPTH, canonical, read_document, seal, write_document
from toolkit.core.errors import IntegrityError, PluginError, SourceError
from toolkit.core.files import digest_bytes
from toolkit.core.version import VERSION

SCHEMA = "toolkit.test/1"
RESERVED = {"schema", "producer", "digest"}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-LARGEST, LARGEST)
    | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=15,
)  # fmt: skip
bodies = st.dictionaries(texts.filter(lambda key: key not in RESERVED), values, max_size=4)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("documents") / "document.json"


@given(values)
def test_canonical_encoding_round_trips(value: Any):
    data = canonical(value)
    assert json.loads(data) == value
    assert canonical(json.loads(data)) == data


@given(values)
def test_order_of_keys_does_not_matter(value: Any):
    assert canonical(reversed_keys(value)) == canonical(value)


def test_canonical_encoding_is_pinned():
    assert canonical({"b": [1, 2.5, None], "a": "ü"}) == '{"a":"ü","b":[1,2.5,null]}'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_cannot_say_is_refused(value: float):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical([value])


def test_sealed_document_says_what_it_is_and_who_made_it():
    document = seal(SCHEMA, {"a": 1})
    digest = document.pop("digest")
    assert document == {
        "a": 1,
        "schema": SCHEMA,
        "producer": {"tool": "toolkit", "version": VERSION},
    }
    assert digest == digest_bytes(canonical(document))


@given(body=bodies, indent=st.sampled_from([None, 1, 4]))
def test_document_round_trips_through_a_file(path: Path, body: dict[str, Any], indent: int | None):
    document = seal(SCHEMA, body)
    write_document(path, document, indent=indent)
    assert read_document(path, SCHEMA) == document
    assert seal(SCHEMA, reversed_keys(body))["digest"] == document["digest"]


def test_no_flipped_bit_changes_a_document_unseen(path: Path):
    document = seal(SCHEMA, {"name": "é", "size": 12, "ratio": 0.5, "ok": True, "none": None})
    write_document(path, document)
    data = path.read_bytes()
    for place in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with contextlib.suppress(SourceError, IntegrityError):
            assert read_document(path, SCHEMA) == document


def test_changed_value_is_an_integrity_error(path: Path):
    document = seal(SCHEMA, {"a": 1})
    path.write_text(json.dumps({**document, "a": 2}))
    with pytest.raises(IntegrityError, match="but states"):
        read_document(path, SCHEMA)


def test_missing_digest_is_an_integrity_error(path: Path):
    path.write_text(json.dumps({"schema": SCHEMA}))
    with pytest.raises(IntegrityError, match="states None"):
        read_document(path, SCHEMA)


@pytest.mark.parametrize("text", ["", "{", "not json", "\ufeff{}", "[]", "null", "3", '{"a": 1}'])
def test_what_is_no_document_is_a_source_error(path: Path, text: str):
    path.write_text(text)
    with pytest.raises(SourceError) as caught:
        read_document(path, SCHEMA)
    assert str(path) in caught.value.problem


def test_other_schema_is_named_beside_the_expected(path: Path):
    write_document(path, seal("toolkit.test/2", {}))
    with pytest.raises(SourceError, match=r"'toolkit\.test/2', expected 'toolkit\.test/1'"):
        read_document(path, SCHEMA)


@pytest.mark.parametrize("place", ["nowhere.json", "."])
def test_unreadable_path_is_a_source_error(tmp_path: Path, place: str):
    with pytest.raises(SourceError, match="Could not read"):
        read_document(tmp_path / place, SCHEMA)


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "-Infinity",
        "1e400",
        r'"\ud800"',
        pytest.param("9" * 20, id="more than 64 bits"),
        pytest.param("9" * 5000, id="5000 digits"),
        pytest.param("[" * 64 + "]" * 64, id="deep"),
        pytest.param("[" * 10**5, id="deeper"),
        '1, "value": 2',
    ],
)
def test_value_that_no_document_can_hold_is_a_source_error(path: Path, value: str):
    """It is refused before its digest, which is wrong here, is compared."""
    path.write_text(f'{{"schema": "{SCHEMA}", "value": {value}, "digest": "sha256:0"}}')
    with pytest.raises(SourceError, match="Could not read"):
        read_document(path, SCHEMA)


@pytest.mark.parametrize(
    "body",
    [
        {"sizes": {2: "a", 10: "b"}},
        {"digest": "sha256:0"},
        {"schema": "x"},
        {"size": 2**63},
        {"deep": functools.reduce(lambda inner, _: [inner], range(MOST_DEPTH), 0)},
    ],
)
def test_what_could_not_be_read_back_is_not_sealed(body: dict[str, Any]):
    with pytest.raises(PluginError):
        seal(SCHEMA, body)


def test_what_is_not_finite_is_stored_as_unknown(path: Path):
    body = {"loss": float("nan"), "deep": [{"rate": np.float32("inf")}], "n": np.int64(3)}
    write_document(path, seal(SCHEMA, body))
    found = read_document(path, SCHEMA)
    assert (found["loss"], found["deep"], found["n"]) == (None, [{"rate": None}], 3)
