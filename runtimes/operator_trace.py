"""Records of the operators that a forward pass ran, in one format for all runtimes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from toolkit.core.documents import Json

MOST_NODES = 200


@dataclass(frozen=True, kw_only=True)
class Node:
    """Operator as it ran, after the runtime's fusions.

    `dtype` is that of its arithmetic ("int8" for signed and unsigned 8-bit integers), or None if
    the operator moves, converts or holds values without computing on them.
    """

    name: str
    operator: str
    provider: str
    dtype: str | None


def precision_of(nodes: Collection[Node]) -> str:
    """Return the dtype of all arithmetic: "mixed" if there are several, "none" without any."""
    return _the_one({node.dtype for node in nodes if node.dtype is not None})


def device_of(nodes: Collection[Node], devices: Mapping[str, str]) -> str:
    """Return the device of all arithmetic, or that of all nodes if none computes.

    Return "mixed" for several devices, and "none" without nodes. `devices` has the device of each
    provider; a provider that is not in it is its own device.
    """
    computing = [node for node in nodes if node.dtype is not None] or nodes
    return _the_one({devices.get(node.provider, node.provider) for node in computing})


def describe(nodes: Collection[Node]) -> Json:
    """Return node counts by provider and operator, and the nodes if there are up to MOST_NODES."""
    kinds = Counter((node.operator, node.provider, node.dtype) for node in nodes)
    operators = sorted(kinds.items(), key=lambda kind: (-kind[1], str(kind[0])))
    return {
        "nodes_by_provider": dict(Counter(node.provider for node in nodes)),
        "operators": [
            {"operator": operator, "provider": provider, "dtype": dtype, "nodes": count}
            for (operator, provider, dtype), count in operators
        ],
        "nodes": [asdict(node) for node in nodes] if len(nodes) <= MOST_NODES else None,
    }


def _the_one(names: set[str]) -> str:
    return names.pop() if len(names) == 1 else "mixed" if names else "none"
