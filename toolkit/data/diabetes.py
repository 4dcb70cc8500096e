"""Diabetes data that is bundled with scikit-learn, and needs no network."""

from __future__ import annotations

from typing import ClassVar, final

from sklearn.datasets import load_diabetes

from toolkit.data.base import DataSet, Request, Splits, refuse_shape
from toolkit.data.tables import regression

TARGET_UNIT = 100.0


@final
class Diabetes(DataSet):
    """442 patients with ten features [N, 10], and the disease progression after a year [N, 1].

    Source: Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, 2004, as
    `sklearn.datasets.load_diabetes(scaled=False)`. The raw features are standardised by the
    training samples. The target, 25 to 346, is in units of 100.
    """

    name: ClassVar[str] = "diabetes"

    def load(self, request: Request) -> Splits:
        raw = load_diabetes(scaled=False)
        columns = list(raw.feature_names)
        if request.shape not in (None, (len(columns),)):
            raise refuse_shape(self.name, request.shape, (len(columns),))
        targets = raw.target[:, None] / TARGET_UNIT
        return regression(raw.data, targets, columns, {"target_unit": TARGET_UNIT})
