"""Tensors in safetensors files, from untrusted sources too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from toolkit.core.errors import SourceError
from toolkit.core.files import wrapping_os_errors


def load_tensors(path: Path) -> dict[str, np.ndarray]:
    """Load the tensors of a safetensors file.

    Raises SourceError for a file that is damaged, or has a dtype or shape that NumPy does not have.
    """
    with wrapping_os_errors(f"read {path}"):
        content = path.read_bytes()
    try:
        return dict(load(content))
    except (KeyError, SafetensorError, TypeError, ValueError) as error:
        what = f"dtype {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise SourceError(
            f"{path} could not be read as safetensors: {what}.",
            hint="Give a directory that `toolkit train` wrote; NumPy has no bfloat16 and float8.",
        ) from error
