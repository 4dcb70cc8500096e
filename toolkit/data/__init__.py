"""Data sets by name."""

from __future__ import annotations

from toolkit.core.registry import Entry, Registry
from toolkit.data.base import DataSet

DATA_SETS: Registry[DataSet] = Registry(
    "data set", {"digits": Entry("toolkit.data.digits:Digits")}, group="toolkit.data"
)
