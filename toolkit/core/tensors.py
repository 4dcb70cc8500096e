"""Reading of safetensors files, including untrusted ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from toolkit.core.errors import SourceError
from toolkit.core.files import wrapping_os_errors


def load_tensors(path: Path) -> dict[str, np.ndarray]:
    """Load the tensors of a safetensors file.

    Raises SourceError if the file is damaged, or has a dtype or shape that NumPy does not support.
    """
    try:
        with wrapping_os_errors(f"read {path}"):
            tensors: dict[str, np.ndarray] = load_file(path, backend="pread")
        for array in tensors.values():
            if array.dtype.isbuiltin != 1:  # defined by an extension package
                raise TypeError(f"dtype {array.dtype}")
    except (AttributeError, SafetensorError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path} could not be read as safetensors: {str(error).rstrip('.')}.",
            hint="Give a directory that `toolkit train` wrote; NumPy has no bfloat16 and float8.",
        ) from error
    return tensors
