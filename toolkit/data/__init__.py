"""Data sets, by name or from a user's file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from toolkit.core.errors import SourceError
from toolkit.core.options import settle
from toolkit.core.progress import Progress, Silent
from toolkit.core.registry import Entry, Registry
from toolkit.data.base import DataSet, Request, Splits
from toolkit.data.csv_file import CsvFile
from toolkit.data.npz_file import NpzFile

DATA_SETS: Registry[DataSet] = Registry(
    "data set",
    {
        "digits": Entry("toolkit.data.digits:Digits"),
        "diabetes": Entry("toolkit.data.diabetes:Diabetes"),
        "california-housing": Entry(
            "toolkit.data.california_housing:CaliforniaHousing", extra="data"
        ),
        "cifar10": Entry("toolkit.data.cifar:Cifar10", extra="data"),
        "cifar100": Entry("toolkit.data.cifar:Cifar100", extra="data"),
        "gtsrb": Entry("toolkit.data.gtsrb:TrafficSigns", extra="data"),
    },
    group="toolkit.data",
)


FILES: Mapping[str, Callable[[Path], DataSet]] = {".csv": CsvFile, ".npz": NpzFile}


def data_set(name: str) -> DataSet:
    """Return the data set of that name, or that of a user's file if `name` is a path.

    A path has a separator or ends in .csv or .npz. Raises UnknownNameError for an unknown name,
    SourceError for a path that is not a file with one of these suffixes.
    """
    path = Path(name)
    suffix = path.suffix.lower()
    if path.name == name and suffix not in FILES:
        return DATA_SETS.create(name)
    if not path.is_file():
        raise SourceError(
            f"Took {name!r} for a file of rows: there is no such file.",
            hint=f"Give a file that ends in {' or '.join(FILES)}, or a data set: "
            f"{', '.join(DATA_SETS.names())}.",
        )
    if suffix not in FILES:
        raise SourceError(
            f"Cannot read rows from {name!r}: its name ends in {suffix or 'nothing'}.",
            hint=f"Give a file that ends in {' or '.join(FILES)}.",
        )
    return FILES[suffix](path)


def load_splits(
    name: str,
    *,
    shape: tuple[int, ...] | None = None,
    directory: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Splits:
    """Load the samples of a data set or file; for the arguments see toolkit.data.base.Request.

    Raises the errors of `data_set` and `DataSet.load`, UnknownNameError for an unknown option in
    `settings`, and UsageError for an invalid value.
    """
    source = data_set(name)
    return source.load(
        Request(
            shape=shape,
            directory=directory,
            settings=settle(f"data set {name!r}", source.options, settings),
            progress=progress or Silent(),
        )
    )
