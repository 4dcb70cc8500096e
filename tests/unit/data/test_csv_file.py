"""The user's own CSV: right rows, or an error that says which row and column is wrong."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.core.errors import SourceError, ToolkitError, UnknownNameError, UsageError
from toolkit.core.specs import Task, TaskKind
from toolkit.data import load_splits
from toolkit.data.base import Splits

HEADER = "age,rooms,price"
ROWS = [f"{n},{n * n % 17}.5,{n * 10}" for n in range(20)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "rows.csv"


def load(path: Path, text: str | bytes, **options: str) -> Splits:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_splits(str(path), settings=options)


def lines(*rows: str, header: str = HEADER) -> str:
    return "\n".join([header, *rows]) + "\n"


def test_every_row_comes_once_standardised_by_the_training_rows(place: Path):
    splits = load(place, lines(*ROWS))
    assert splits.task == Task(kind=TaskKind.REGRESSION, input_shape=(2,), outputs=1)
    assert (len(splits.train), len(splits.test)) == (16, 4)
    np.testing.assert_allclose(splits.train.inputs.mean(axis=0), 0, atol=1e-6)
    stated = splits.preprocessing
    inputs = np.concatenate([splits.train.inputs, splits.test.inputs])
    targets = np.concatenate([splits.train.targets, splits.test.targets])
    raw = np.hstack([inputs * stated["std"] + stated["mean"], targets])
    expected = np.array([row.split(",") for row in ROWS], dtype=float)
    np.testing.assert_allclose(raw[raw[:, 0].argsort()], expected, atol=1e-4)
    assert (stated["columns"], stated["target"]) == (["age", "rooms"], "price")


def test_any_column_can_be_the_target(place: Path):
    splits = load(place, lines(*ROWS), target="age")
    assert splits.preprocessing["columns"] == ["rooms", "price"]
    assert sorted(np.concatenate([splits.train.targets, splits.test.targets])[:, 0]) == [*range(20)]


@pytest.mark.parametrize(
    ("names", "classes"),
    [(["cat", "dog", "ant"], ["ant", "cat", "dog"]), (["10", "2", "1"], ["1", "2", "10"])],
)
def test_classes_are_in_order(place: Path, names: list[str], classes: list[str]):
    rows = [f"{n},{n},{names[n % 3]}" for n in range(20)]
    splits = load(place, lines(*rows), kind="classification")
    assert splits.task == Task(kind=TaskKind.CLASSIFICATION, input_shape=(2,), outputs=3)
    assert splits.preprocessing["classes"] == classes
    assert splits.train.targets.dtype == np.int64
    ages = splits.train.inputs[:, 0] * splits.preprocessing["std"][0]
    ages += splits.preprocessing["mean"][0]
    expected = [classes.index(names[round(age) % 3]) for age in ages]
    assert splits.train.targets.tolist() == expected


def test_the_rows_are_the_same_each_time_and_the_file_is_recorded(place: Path):
    first, again = (load(place, lines(*ROWS)) for _ in range(2))
    assert first.test.inputs.tobytes() == again.test.inputs.tobytes()
    changed = load(place, lines(*ROWS[:-1], "3,4,5"))
    assert first.preprocessing["file_digest"] == again.preprocessing["file_digest"]
    assert first.preprocessing["file_digest"] != changed.preprocessing["file_digest"]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + lines(*ROWS),
        lines(*ROWS).replace("\n", "\r\n"),
        lines(*ROWS).rstrip("\n"),
        lines(*ROWS).replace(",", " , "),
        lines(*ROWS).replace("age", '"age"').replace("3,9.5", '"3","9.5"'),
        lines(*ROWS[:5], "", *ROWS[5:], ""),
    ],
    ids=["mark", "windows", "no newline", "spaces", "quotes", "blank lines"],
)
def test_ways_of_writing_are_alike(place: Path, text: str):
    splits, plain = load(place, text), load(place, lines(*ROWS))
    assert splits.train.inputs.tobytes() == plain.train.inputs.tobytes()
    assert splits.preprocessing["columns"] == ["age", "rooms"]


@pytest.mark.parametrize("text", ["", "NA", "nan", " ", "null", "?", "N/A"])
def test_a_missing_value_is_named_by_row_and_column(place: Path, text: str):
    rows = [*ROWS[:6], f"6,{text},60", *ROWS[7:]]
    with pytest.raises(UsageError, match=r"row 7 \(line 8\), column 'rooms': the value is missing"):
        load(place, lines(*rows))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("6,Berlin,60", "row 7 (line 8), column 'rooms': 'Berlin' is no number"),
        ("6,inf,60", "row 7 (line 8), column 'rooms': 'inf' is no number of float32"),
        ("6,-1e39,60", "row 7 (line 8), column 'rooms': '-1e39'"),
        ("6,1,dear", "row 7 (line 8), column 'price': 'dear' is no number"),
        ("6,1", "row 7 (line 8) has 2 fields, the header 3"),
        ("6,1,60,70", "row 7 (line 8) has 4 fields, the header 3"),
        ('6,"1,60', "it is no text of comma-separated values"),
    ],
)
def test_a_row_that_is_wrong_is_named(place: Path, row: str, said: str):
    with pytest.raises(UsageError) as caught:
        load(place, lines(*ROWS[:6], row, *ROWS[7:]))
    assert said in caught.value.problem
    assert str(place) in caught.value.problem


def test_the_line_counts_what_the_row_does_not(place: Path):
    with pytest.raises(UsageError, match=r"row 3 \(line 6\), column 'rooms'"):
        load(place, lines(ROWS[0], "", ROWS[1], "", "2,x,3", *ROWS[3:]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
        (lines(), "it has 0 rows"),
        (lines(*ROWS[:4]), "it has 4 rows, expected at least 5"),
        (lines("1", "2", header="age"), "it has one column, 'age'"),
        (lines(*["1;2;3"] * 9, header="age;rooms;price"), "it has one column"),
        (lines(*ROWS, header="0,1.5,2"), "its first row holds numbers"),
        (lines(*ROWS, header=",rooms,price"), "column 1 has no name"),
        (lines(*ROWS, header="age,age,price"), "2 columns are named 'age'"),
        (b"\xff\xfea,b\n", "it is no text"),
    ],
)
def test_a_file_that_is_no_table_is_refused(place: Path, text: str | bytes, said: str):
    with pytest.raises(UsageError) as caught:
        load(place, text)
    assert said in caught.value.problem


@pytest.mark.parametrize("name", ["row", "one"])
def test_classes_that_teach_nothing_are_refused(place: Path, name: str):
    rows = [f"{n},{n},{n if name == 'row' else 'cat'}" for n in range(20)]
    with pytest.raises(UsageError, match=r"has (20|1) classes in 20 rows"):
        load(place, lines(*rows), kind="classification")


def test_options_that_are_none_are_refused(place: Path):
    with pytest.raises(UnknownNameError, match="prise"):
        load(place, lines(*ROWS), target="prise")
    with pytest.raises(UnknownNameError, match="order"):
        load(place, lines(*ROWS), order="rgb")
    with pytest.raises(UsageError, match="regression or classification"):
        load(place, lines(*ROWS), kind="ranking")


def test_a_model_of_another_width_is_refused(place: Path):
    load(place, lines(*ROWS))
    with pytest.raises(UsageError, match=r"takes rows of 8; .* gives 2"):
        load_splits(str(place), shape=(8,))


@pytest.mark.parametrize("name", ["nosuch.csv", "nosuch.npz", "./nosuch", "folder/digits"])
def test_a_path_that_leads_nowhere_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="there is no such file") as caught:
        load_splits(name)
    assert "digits" in caught.value.hint


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"ends in \.parquet"):
        load_splits(str(tmp_path / "rows.parquet"))


def test_a_name_is_no_file_even_beside_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "diabetes").write_text("mine")
    assert load_splits("diabetes").task.input_shape == (10,)


def test_a_name_ending_in_capitals_and_beside_the_script_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("ROWS.CSV").write_text(lines(*ROWS))
    assert len(load_splits("ROWS.CSV").train) == 16


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(numbers, numbers, numbers), min_size=5, max_size=30),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_any_finite_numbers_are_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, ...]], quoting: int
):
    stream = io.StringIO()
    csv.writer(stream, quoting=quoting).writerows([("a", "b", "c"), *rows])  # type: ignore[arg-type]
    splits = load(tmp_path_factory.mktemp("any") / "rows.csv", stream.getvalue())
    for split in (splits.train, splits.test):
        assert np.isfinite(split.inputs).all()
    found = np.concatenate([splits.train.targets, splits.test.targets])[:, 0]
    assert sorted(found) == sorted(np.float32([row[2] for row in rows]))


@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=200) | st.text(alphabet='ab1,;"\n\r.-', max_size=80))
def test_any_bytes_are_rows_or_a_toolkit_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
):
    place = tmp_path_factory.mktemp("bytes") / "rows.csv"
    try:
        splits = load(place, content)
    except ToolkitError:
        return
    assert np.isfinite(splits.train.inputs).all()
