"""What nvtripy lowered a function to, as data: operations of the tensorrt dialect in order."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from safetensors.numpy import load, save

KEY = "program.double"
DYNAMIC = -1


@dataclass(frozen=True)
class Type:
    """Of a tensor, as nvtripy inferred it: an extent that it does not know is DYNAMIC."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """`name` is that of its result; `inputs` are names, an operand that is left out is None."""

    name: str
    kind: str
    inputs: dict[str, str | None]
    attributes: dict[str, Any]
    type: Type | None


@dataclass(frozen=True)
class Input:
    """`least`, `usual` and `largest` are shapes; none where nvtripy gave no profile."""

    name: str
    type: Type
    least: tuple[int, ...] = ()
    usual: tuple[int, ...] = ()
    largest: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    inputs: list[Input]
    operations: list[Operation]
    outputs: list[str]
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        plain = {
            "inputs": [asdict(each) for each in self.inputs],
            "operations": [asdict(each) for each in self.operations],
            "outputs": self.outputs,
        }
        return save(self.constants, {KEY: json.dumps(plain)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Program:
        """Raises ValueError for what is none."""
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        if KEY not in header:
            raise ValueError("no program of the double")
        plain = json.loads(header[KEY])
        return cls(
            inputs=[
                Input(
                    name=each["name"],
                    type=_type(each["type"]),
                    **{n: tuple(each[n]) for n in ("least", "usual", "largest")},
                )
                for each in plain["inputs"]
            ],
            operations=[
                Operation(**{**each, "type": each["type"] and _type(each["type"])})
                for each in plain["operations"]
            ],
            outputs=plain["outputs"],
            constants=load(data),
        )


def _type(plain: dict[str, Any]) -> Type:
    return Type(plain["dtype"], tuple(plain["shape"]))
