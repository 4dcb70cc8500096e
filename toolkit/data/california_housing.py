"""California Housing: house prices of 1990 by block group."""

from __future__ import annotations

import io
from typing import ClassVar, final

import numpy as np

from toolkit.core.errors import IntegrityError
from toolkit.data.archives import member
from toolkit.data.base import DataSet, Request, Splits, refuse_shape
from toolkit.data.downloads import RemoteFile, fetch
from toolkit.data.tables import regression

# URL and digest are those in sklearn/datasets/_california_housing.py.
ARCHIVE = RemoteFile(
    name="cal_housing.tgz",
    url="https://ndownloader.figshare.com/files/5976036",
    digest="sha256:aaa5c9a6afe2225cc2aed2723682ae403280c4a3695a2ddda4ffb5d8215ea681",
)
MEMBER = "CaliforniaHousing/cal_housing.data"
COLUMNS = (
    "MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude",
    "Longitude",
)  # fmt: skip
TARGET_UNIT = 100_000.0  # dollars


@final
class CaliforniaHousing(DataSet):
    """20,640 block groups with eight features [N, 8], and their median house value [N, 1].

    Source: Pace and Barry, Sparse Spatial Autoregressions, 1997. The features are those of
    `sklearn.datasets.fetch_california_housing`, computed from the same archive, and standardised by
    the training samples. The target is in units of 100,000 dollars.
    """

    name: ClassVar[str] = "california-housing"

    def __init__(self, archive: RemoteFile = ARCHIVE) -> None:
        self._archive = archive

    def load(self, request: Request) -> Splits:
        if request.shape not in (None, (len(COLUMNS),)):
            raise refuse_shape(self.name, request.shape, (len(COLUMNS),))
        path = fetch(self._archive, request.directory, request.progress)
        try:
            raw = np.loadtxt(io.BytesIO(member(path, MEMBER)), delimiter=",", ndmin=2)
            features, prices = _columns(raw)
        except ValueError as error:
            raise IntegrityError(
                f"Read {MEMBER} of {path}: {error}.", hint="Remove the archive."
            ) from error
        targets = prices[:, None] / TARGET_UNIT
        return regression(features, targets, list(COLUMNS), {"target_unit": TARGET_UNIT})


def _columns(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return COLUMNS [N, 8], with counts as means per household, and prices [N]."""
    longitude, latitude, age, rooms, bedrooms, population, households, income, price = raw.T
    per_household = [counts / households for counts in (rooms, bedrooms, population)]
    average_rooms, average_bedrooms, occupation = per_household
    features = np.stack(
        [income, age, average_rooms, average_bedrooms, population, occupation, latitude, longitude],
        axis=1,
    )
    return features, price
