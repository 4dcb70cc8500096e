"""Data sets by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.core.options import settle
from toolkit.core.progress import Progress, Silent
from toolkit.core.registry import Entry, Registry
from toolkit.data.base import DataSet, Request, Splits

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


def load_splits(
    name: str,
    *,
    shape: tuple[int, ...] | None = None,
    directory: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Splits:
    """The rows of a data set, as toolkit.data.base.Request says.

    Raises UnknownNameError for a name or an option that is not there, and what `DataSet.load` does.
    """
    data_set = DATA_SETS.create(name)
    return data_set.load(
        Request(
            shape=shape,
            directory=directory,
            settings=settle(f"data set {name!r}", data_set.options, settings),
            progress=progress or Silent(),
        )
    )
