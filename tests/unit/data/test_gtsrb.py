"""The traffic signs: the right region of the right image, whichever the side and the order."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.data_server import SIGNS_A_CLASS, Server, ppm, sign_files, zipped
from toolkit.core.errors import IntegrityError, UsageError
from toolkit.core.options import settle
from toolkit.data.base import Request, Splits
from toolkit.data.gtsrb import TEST, TEST_CLASSES, TRAINING, TrafficSigns

FILES = sign_files()
TRAINING_FOLDER = "GTSRB/Final_Training/Images"
TABLE = f"{TRAINING_FOLDER}/00005/GT-00005.csv"
IMAGE = f"{TRAINING_FOLDER}/00005/00000_00000.ppm"


def load(
    server: Server,
    place: Path,
    *,
    side: int | None = None,
    files: dict[str, dict[str, bytes]] | None = None,
    **settings: str,
) -> Splits:
    published = {**FILES, **(files or {})}
    archives = [
        server.publish(file.name, zipped(published[file.name]))
        for file in (TRAINING, TEST, TEST_CLASSES)
    ]
    request = Request(
        shape=None if side is None else (3, side, side),
        directory=place,
        settings=settle("data set 'gtsrb'", TrafficSigns.options, settings),
    )
    return TrafficSigns(*archives).load(request)


def expected(content: bytes, row: dict[str, str], side: int) -> np.ndarray:
    """The stated preprocessing of one image, red first, from the bytes of the pixmap."""
    width, height = int(row["Width"]), int(row["Height"])
    image = np.frombuffer(content[-width * height * 3 :], np.uint8).reshape(height, width, 3)
    left, top, right, bottom = (int(row[f"Roi.{name}"]) for name in ("X1", "Y1", "X2", "Y2"))
    sign = cv2.resize(np.ascontiguousarray(image[top:bottom, left:right]), (side, side))
    lab = cv2.cvtColor(sign, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4)).apply(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).transpose(2, 0, 1) / 255


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode()), delimiter=";"))


@pytest.mark.parametrize("side", [32, 48, 64])
def test_every_training_row_is_its_image_s_region(server: Server, tmp_path: Path, side: int):
    splits = load(server, tmp_path, side=side, order="rgb")
    files = FILES[TRAINING.name]
    row = 0
    for label in range(43):
        folder = f"{TRAINING_FOLDER}/{label:05d}"
        for line in table(files[f"{folder}/GT-{label:05d}.csv"]):
            image = expected(files[f"{folder}/{line['Filename']}"], line, side)
            np.testing.assert_allclose(splits.train.inputs[row], image, atol=1e-6)
            assert splits.train.targets[row] == label
            row += 1
    assert row == len(splits.train) == 43 * SIGNS_A_CLASS


def test_every_test_row_has_the_class_of_the_other_archive(server: Server, tmp_path: Path):
    splits = load(server, tmp_path, order="rgb")
    lines = table(FILES[TEST_CLASSES.name]["GT-final_test.csv"])
    assert splits.test.targets.tolist() == [int(line["ClassId"]) for line in lines]
    for row, line in enumerate(lines):
        content = FILES[TEST.name][f"GTSRB/Final_Test/Images/{line['Filename']}"]
        np.testing.assert_allclose(splits.test.inputs[row], expected(content, line, 32), atol=1e-6)


def test_blue_is_first_unless_told(server: Server, tmp_path: Path):
    unless_told = load(server, tmp_path)
    told = load(server, tmp_path, order="rgb")
    assert np.array_equal(unless_told.train.inputs, told.train.inputs[:, ::-1])
    assert (unless_told.preprocessing["order"], told.preprocessing["order"]) == ("bgr", "rgb")


def test_a_red_sign_is_red(server: Server, tmp_path: Path):
    image = np.zeros((30, 30, 3), np.uint8)
    image[..., 0] = 200
    files = {name: ppm(image) if name.endswith("ppm") else content
             for name, content in FILES[TRAINING.name].items()}  # fmt: skip
    for name in [name for name in files if name.endswith(".csv")]:
        head, *rows = files[name].decode().splitlines()
        rows = [";".join([row.split(";")[0], "30;30;5;5;25;25", row.split(";")[7]]) for row in rows]
        files[name] = "\n".join([head, *rows]).encode()
    splits = load(server, tmp_path, files={TRAINING.name: files})
    blue, green, red = splits.train.inputs[0].mean(axis=(1, 2))
    assert red > 0.5 > blue
    assert red > 0.5 > green


def test_the_study_trains_on_four_fifths(server: Server, tmp_path: Path):
    whole, study = load(server, tmp_path), load(server, tmp_path, rows="study")
    assert len(study.train) == round(len(whole.train) * 0.8)
    kept = {row.tobytes() for row in study.train.inputs}
    assert kept < {row.tobytes() for row in whole.train.inputs}
    assert np.array_equal(study.test.inputs, whole.test.inputs)


def test_four_fifths_of_the_published_images_are_the_study_s_number():
    from toolkit.data.tables import split_rows

    assert len(split_rows(39_209)[0]) == 31_367


def test_another_side_is_refused(server: Server, tmp_path: Path):
    with pytest.raises(UsageError, match="3 x 32 x 32 or 3 x 48 x 48 or 3 x 64 x 64"):
        load(server, tmp_path, side=28)
    assert server.asked == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (IMAGE, b"no image", "is no image"),
        (IMAGE, b"", "is no image"),
        (TABLE, b"Filename,Width\na,1", "Filename"),
        (TABLE, b"\xff\xfe", "UnicodeDecodeError"),
    ],
)
def test_what_is_not_of_the_benchmark_is_refused(
    server: Server, tmp_path: Path, name: str, content: bytes, said: str
):
    files = {TRAINING.name: {**FILES[TRAINING.name], name: content}}
    with pytest.raises(IntegrityError, match=said) as caught:
        load(server, tmp_path, files=files)
    assert name in caught.value.problem


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [(b";5\r\n", b";43\r\n", "class 43"), (b";2;3;", b";2;300;", "the region"),
     (b";2;3;", b";2;x;", "'x'"), (b"00000_00000", b"00000_00009", "no GTSRB")],
)  # fmt: skip
def test_a_row_of_the_table_that_cannot_be_is_refused(
    server: Server, tmp_path: Path, old: bytes, new: bytes, said: str
):
    files = FILES[TRAINING.name]
    wrong = files[TABLE].replace(old, new)
    assert wrong != files[TABLE]
    with pytest.raises(IntegrityError, match=said):
        load(server, tmp_path, files={TRAINING.name: {**files, TABLE: wrong}})


def test_an_archive_of_something_else_is_refused(server: Server, tmp_path: Path):
    with pytest.raises(IntegrityError, match=r"GT-00000\.csv"):
        load(server, tmp_path, files={TRAINING.name: {"other.txt": b""}})


def test_an_entry_that_leads_out_is_refused(server: Server, tmp_path: Path):
    files = {**FILES[TRAINING.name], "GTSRB/../../evil.ppm": b""}
    with pytest.raises(IntegrityError, match="leads out"):
        load(server, tmp_path / "a" / "b", files={TRAINING.name: files})
    assert not (tmp_path / "a" / "evil.ppm").exists()
