"""Diabetes and California Housing: right columns, standardised by the training rows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import _california_housing, fetch_california_housing, load_diabetes

from tests.data_server import CALIFORNIA_ROWS, Server, california_files, tar_gz
from toolkit.core.errors import IntegrityError
from toolkit.data import load_splits
from toolkit.data.base import Request, Splits
from toolkit.data.california_housing import ARCHIVE, MEMBER, CaliforniaHousing


def california(server: Server, place: Path, files: dict[str, bytes] | None = None) -> Splits:
    archive = server.publish("cal_housing.tgz", tar_gz(files or california_files()))
    return CaliforniaHousing(archive).load(Request(directory=place))


def undone(splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    """All rows and targets as they were before, by the stated preprocessing, in order of row."""
    stated = splits.preprocessing
    inputs = np.concatenate([splits.train.inputs, splits.test.inputs]).astype(np.float64)
    targets = np.concatenate([splits.train.targets, splits.test.targets])[:, 0]
    raw = inputs * stated["std"] + stated["mean"]
    order = np.lexsort(raw.T.round(3))
    return raw[order], targets[order] * stated["target_unit"]


def in_order(rows: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort(rows.T.round(3))
    return rows[order], targets[order]


def test_diabetes_is_scikit_learn_s_unscaled(tmp_path: Path):
    splits = load_splits("diabetes")
    rows, targets = undone(splits)
    raw = load_diabetes(scaled=False)
    expected_rows, expected_targets = in_order(raw.data, raw.target)
    np.testing.assert_allclose(np.sort(targets), np.sort(expected_targets), rtol=1e-6)
    np.testing.assert_allclose(np.sort(rows, axis=0), np.sort(expected_rows, axis=0), rtol=1e-4)
    assert (len(splits.train), len(splits.test)) == (354, 88)
    assert splits.preprocessing["columns"][:3] == ["age", "sex", "bmi"]


def test_california_has_the_columns_of_scikit_learn(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    splits = california(server, tmp_path / "ours")
    archive = _california_housing.ARCHIVE._replace(
        url=f"{server.url}/cal_housing.tgz",
        checksum=server.publish("cal_housing.tgz", server.files["cal_housing.tgz"])
        .digest.removeprefix("sha256:"),
    )  # fmt: skip
    monkeypatch.setattr(_california_housing, "ARCHIVE", archive)
    theirs = fetch_california_housing(data_home=tmp_path / "theirs")
    rows, targets = undone(splits)
    expected_rows, expected_targets = in_order(theirs.data, theirs.target * 100_000)
    np.testing.assert_allclose(rows, expected_rows, rtol=1e-4)
    np.testing.assert_allclose(targets, expected_targets, rtol=1e-6)
    assert splits.preprocessing["columns"] == theirs.feature_names


def test_california_comes_from_where_scikit_learn_takes_it():
    theirs = _california_housing.ARCHIVE
    assert (ARCHIVE.url, ARCHIVE.digest) == (theirs.url, f"sha256:{theirs.checksum}")
    assert ARCHIVE.name == theirs.filename


@pytest.mark.parametrize("name", ["diabetes", "california"])
def test_the_training_rows_alone_make_the_scale(server: Server, tmp_path: Path, name: str):
    splits = load_splits(name) if name == "diabetes" else california(server, tmp_path)
    train = splits.train.inputs.astype(np.float64)
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(axis=0), 1, atol=1e-5)
    assert np.abs(splits.test.inputs.mean(axis=0)).max() > 1e-3


def test_one_row_in_five_is_a_test_row(server: Server, tmp_path: Path):
    splits = california(server, tmp_path)
    assert (len(splits.train), len(splits.test)) == (CALIFORNIA_ROWS * 4 // 5, CALIFORNIA_ROWS // 5)


@pytest.mark.parametrize("text", [b"1,2,3\n4,5,6\n", b"a,b,c,d,e,f,g,h,i\n", b""])
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_a_table_that_is_no_table_is_refused(server: Server, tmp_path: Path, text: bytes):
    with pytest.raises(IntegrityError, match="cal_housing"):
        california(server, tmp_path, {MEMBER: text})


def test_a_column_with_one_value_is_only_centred(server: Server, tmp_path: Path):
    rows = np.loadtxt(io.BytesIO(california_files()[MEMBER]), delimiter=",")
    rows[:, 2] = 7.0
    text = "".join(",".join(map(str, row)) + "\n" for row in rows.tolist())
    inputs = california(server, tmp_path, {MEMBER: text.encode()}).train.inputs
    assert np.isfinite(inputs).all()
    assert not inputs[:, 1].any()
