"""German Traffic Sign Recognition Benchmark, read from the official archives."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, final

import cv2
import numpy as np

from toolkit.core.errors import IntegrityError
from toolkit.core.options import Option
from toolkit.core.progress import Progress
from toolkit.core.specs import Task, TaskKind
from toolkit.data.archives import member, members, require
from toolkit.data.base import DataSet, Request, Split, Splits, refuse_shape
from toolkit.data.downloads import RemoteFile, fetch
from toolkit.data.images import RAW_MAXIMUM, normalised
from toolkit.data.tables import SPLIT_SEED, split_rows

# The MD5 sums of the test archives are in torchvision/datasets/gtsrb.py. torchvision does not use
# the training archive; several independent loaders have the same MD5 sum for it.
BASE = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"
TRAINING = RemoteFile(
    name="GTSRB_Final_Training_Images.zip",
    url=f"{BASE}GTSRB_Final_Training_Images.zip",
    digest="md5:f33fd80ac59bff73c82d25ab499e03a3",
)
TEST = RemoteFile(
    name="GTSRB_Final_Test_Images.zip",
    url=f"{BASE}GTSRB_Final_Test_Images.zip",
    digest="md5:c7e4e6327067d32654124b0fe9e82185",
)
TEST_CLASSES = RemoteFile(
    name="GTSRB_Final_Test_GT.zip",
    url=f"{BASE}GTSRB_Final_Test_GT.zip",
    digest="md5:fe31e9c9270bbcd7b84b7f21a9d9d9e5",
)
TRAINING_FOLDER = "GTSRB/Final_Training/Images/"
TEST_FOLDER = "GTSRB/Final_Test/Images/"
TEST_TABLE = "GT-final_test.csv"

CLASSES = 43
SIDES = (32, 48, 64)
CLIP_LIMIT = 2.0
TILES = (4, 4)
TOLD_EVERY = 2000


@dataclass(frozen=True, kw_only=True)
class Sign:
    """Image of an archive, with the bounding box and the class of its sign.

    The box has the columns `left` to `right` and the lines `top` to `bottom`, without the last.
    """

    image: str
    left: int
    top: int
    right: int
    bottom: int
    label: int

    @classmethod
    def from_row(cls, folder: str, row: Mapping[str, str]) -> Self:
        """Parse a row of the benchmark's tables. Raises KeyError or ValueError if it is not one."""
        sign = cls(
            image=folder + row["Filename"],
            left=int(row["Roi.X1"]),
            top=int(row["Roi.Y1"]),
            right=int(row["Roi.X2"]),
            bottom=int(row["Roi.Y2"]),
            label=int(row["ClassId"]),
        )
        if not 0 <= sign.label < CLASSES:
            raise ValueError(f"class {sign.label}, expected below {CLASSES}")
        return sign


@final
class TrafficSigns(DataSet):
    """39,209 training and 12,630 test images of traffic signs [N, 3, side, side] in 43 classes.

    The side is 32, 48 or 64, by default 32. Each image is cropped to the bounding box of the sign,
    resized bilinearly, equalised in contrast (CLAHE on the lightness of CIE Lab), and divided by
    255.

    Source: Stallkamp, Schlipsing, Salmen and Igel, Man vs. computer, 2012. The study trains on
    31,367 training images, which are four fifths, without naming them; `rows=study` draws as many
    at random with a fixed seed. The images are frames of videos that pass the signs. A random fifth
    of the training images would show the same physical signs as the others, so the test samples are
    always those of the official split.
    """

    name: ClassVar[str] = "gtsrb"
    options: ClassVar[Mapping[str, Option]] = {
        "order": Option(
            default="bgr", choices=("bgr", "rgb"), help="Which channel comes first, blue or red."
        ),
        "rows": Option(
            default="all",
            choices=("all", "study"),
            help="All 39,209 training images, or four fifths as in the study.",
        ),
    }

    def __init__(
        self,
        training: RemoteFile = TRAINING,
        test: RemoteFile = TEST,
        test_classes: RemoteFile = TEST_CLASSES,
    ) -> None:
        self._files = (training, test, test_classes)

    def load(self, request: Request) -> Splits:
        shapes = [(3, side, side) for side in SIDES]
        shape = shapes[0] if request.shape is None else request.shape
        if shape not in shapes:
            raise refuse_shape(self.name, shape, *shapes)
        paths = [fetch(file, request.directory, request.progress) for file in self._files]
        order = str(request.settings["order"])
        side = shape[-1]
        signs, content = _training(paths[0])
        if request.settings["rows"] == "study":
            kept, _ = split_rows(len(signs))
            signs = [signs[row] for row in sorted(kept)]
        train = _split(signs, content, paths[0], side, order, request.progress)
        del content
        signs, content = _test(paths[1], paths[2])
        test = _split(signs, content, paths[1], side, order, request.progress)
        return Splits(
            task=Task(kind=TaskKind.CLASSIFICATION, input_shape=shape, outputs=CLASSES),
            train=train,
            test=test,
            preprocessing={
                "crop": "region of interest",
                "resize": [side, side],
                "interpolation": "bilinear",
                "equalisation": {
                    "method": "CLAHE on L of CIE Lab",
                    "clip_limit": CLIP_LIMIT,
                    "tiles": list(TILES),
                },
                "order": order,
                "raw_maximum": RAW_MAXIMUM,
                "mean": [0.0] * 3,
                "std": [1.0] * 3,
                "rows": request.settings["rows"],
                "rows_seed": SPLIT_SEED,
            },
        )


def _training(path: Path) -> tuple[list[Sign], dict[str, bytes]]:
    """Return the training signs by class, in the order of its table, and the files by name."""
    content = members(
        path, lambda name: name.startswith(TRAINING_FOLDER) and name.endswith((".ppm", ".csv"))
    )
    tables = sorted(name for name in content if name.endswith(".csv"))
    if not tables:
        require(content, f"{TRAINING_FOLDER}00000/GT-00000.csv", path)
    found: list[Sign] = []
    for table in tables:
        folder = table.rpartition("/")[0] + "/"
        found += _signs(content[table], folder, f"{table} of {path}")
    return found, content


def _test(images: Path, classes: Path) -> tuple[list[Sign], dict[str, bytes]]:
    table = member(classes, TEST_TABLE)
    signs = _signs(table, TEST_FOLDER, f"{TEST_TABLE} of {classes}")
    return signs, members(images, {sign.image for sign in signs}.__contains__)


def _signs(table: bytes, folder: str, where: str) -> list[Sign]:
    """Parse a table. Raises IntegrityError if it is not of the benchmark."""
    try:
        rows = csv.DictReader(io.StringIO(table.decode()), delimiter=";")
        return [Sign.from_row(folder, row) for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise IntegrityError(
            f"Read {where}: {type(error).__name__}: {error}.",
            hint="It is not a table of this data set: remove the archive.",
        ) from error


def _split(
    signs: Sequence[Sign],
    content: Mapping[str, bytes],
    path: Path,
    side: int,
    order: str,
    progress: Progress,
) -> Split:
    images = np.empty((len(signs), 3, side, side), np.uint8)
    equaliser = cv2.createCLAHE(clipLimit=CLIP_LIMIT, tileGridSize=TILES)
    with _one_thread():
        for index, sign in enumerate(signs):
            blue_first = _prepared(_region(sign, content, path), side, equaliser)
            images[index] = blue_first.transpose(2, 0, 1)[:: 1 if order == "bgr" else -1]
            if (index + 1) % TOLD_EVERY == 0 or index + 1 == len(signs):
                progress.update(f"prepare {path.name}", index + 1, len(signs))
    return Split(
        inputs=normalised(images, (0.0,) * 3, (1.0,) * 3),
        targets=np.array([sign.label for sign in signs], np.int64),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit OpenCV to one thread in the block, as distributing such small images costs more."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _region(sign: Sign, content: Mapping[str, bytes], path: Path) -> np.ndarray:
    """Return the sign as uint8 [H, W, 3] in BGR order.

    Raises IntegrityError if the file is not an image, or does not contain the bounding box.
    """
    encoded = np.frombuffer(require(content, sign.image, path), np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None
    if image is None:
        raise IntegrityError(
            f"Read {sign.image} of {path}: it is no image.", hint="Remove the archive."
        )
    height, width = image.shape[:2]
    if not (0 <= sign.left < sign.right <= width and 0 <= sign.top < sign.bottom <= height):
        raise IntegrityError(
            f"Read {sign.image} of {path}: it is {width} x {height}, the region of its sign goes "
            f"from ({sign.left}, {sign.top}) to ({sign.right}, {sign.bottom}).",
            hint="Remove the archive.",
        )
    return image[sign.top : sign.bottom, sign.left : sign.right]


def _prepared(image: np.ndarray, side: int, equaliser: cv2.CLAHE) -> np.ndarray:
    """Resize an image and equalise its contrast; return uint8 [side, side, 3] in BGR order."""
    resized = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
    lab = cv2.cvtColor(resized, cv2.COLOR_BGR2LAB)
    lab[..., 0] = equaliser.apply(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2BGR)
