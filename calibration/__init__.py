"""Registry of calibration methods, which choose the range in which a tensor is quantised."""

from __future__ import annotations

from calibration.base import Method
from toolkit.core.registry import Entry, Registry

METHODS: Registry[Method] = Registry(
    "calibration method",
    {
        "entropy": Entry("calibration.entropy:Entropy"),
        "minmax": Entry("calibration.minmax:MinMax"),
        "mse": Entry("calibration.mse:LeastSquares"),
        "percentile": Entry("calibration.percentile:Percentile"),
    },
    group="toolkit.calibration",
)
