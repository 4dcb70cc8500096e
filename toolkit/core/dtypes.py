"""Dtypes by name: those of NumPy and ml_dtypes, and strings."""

from __future__ import annotations

import numpy as np

from toolkit.core.errors import FeedError

STRINGS = "object"  # a tensor of strings, which NumPy stores as objects


def dtype_of(name: str) -> np.dtype:
    """Return the dtype of that name. Raises FeedError if neither NumPy nor ml_dtypes has it."""
    import ml_dtypes

    try:
        return np.dtype(getattr(ml_dtypes, name, name))
    except TypeError:
        raise FeedError(
            f"There is no dtype {name!r} in NumPy or ml_dtypes.",
            hint="Cast that input or output to a dtype of NumPy in the model.",
        ) from None


def is_floating(dtype: np.dtype) -> bool:
    """Return whether a dtype of NumPy or ml_dtypes is floating-point."""
    name: str = dtype.name
    return "float" in name


def is_foreign(dtype: np.dtype) -> bool:
    """Return whether a dtype is of ml_dtypes; other libraries accept its bytes as integers."""
    return dtype.kind == "V" and dtype.names is None and dtype.name != f"void{8 * dtype.itemsize}"


def as_integers(array: np.ndarray) -> np.ndarray:
    """Return a view of an array of ml_dtypes as unsigned integers of the same size."""
    return array.view(f"u{array.dtype.itemsize}")
