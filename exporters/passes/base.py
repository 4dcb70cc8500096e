"""Passes that are told a number."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from toolkit.core.options import Option


class NumberedPass(ir.passes.InPlacePass):
    """A pass that takes one whole number, as in `static-batch=16`.

    `option` says which numbers may be meant, and its default is taken where none is given;
    `number` is set before the pass runs.
    """

    option: ClassVar[Option]
    number: int
