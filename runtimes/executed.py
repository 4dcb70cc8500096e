"""What a pass ran, operator by operator, in one form for every runtime that can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from toolkit.core.documents import Json

MOST_NODES = 200


@dataclass(frozen=True, kw_only=True)
class Node:
    """An operator as it ran, after the runtime's own fusions.

    `dtype` is that of its arithmetic ("int8" for eight bits with or without a sign), and None where
    it moves, converts or holds values without computing on them.
    """

    name: str
    operator: str
    provider: str
    dtype: str | None


def precision_of(nodes: Collection[Node]) -> str:
    """The dtype of all arithmetic: "mixed" for several, "none" where there is none."""
    return _the_one({node.dtype for node in nodes if node.dtype is not None})


def device_of(nodes: Collection[Node], devices: Mapping[str, str]) -> str:
    """Where all arithmetic ran, by the device of each provider; without any, where nodes ran.

    "mixed" for several, "none" for no nodes. A provider that has no device here stands for itself.
    """
    computing = [node for node in nodes if node.dtype is not None] or nodes
    return _the_one({devices.get(node.provider, node.provider) for node in computing})


def describe(nodes: Collection[Node]) -> Json:
    """How many nodes each provider and operator has, and each of them if there are few enough."""
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
