"""Base class of passes that take a number."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from toolkit.core.options import Option


class NumberedPass(ir.passes.InPlacePass):
    """Pass that takes one integer, as in `static-batch=16`.

    `option` defines the valid numbers and the default. `number` is set before the pass runs.
    """

    option: ClassVar[Option]
    number: int
