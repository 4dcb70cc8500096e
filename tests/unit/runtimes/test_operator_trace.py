"""What a list of nodes comes to: precision, device, counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtimes.operator_trace import MOST_NODES, Node, describe, device_of, precision_of

names = st.text("abc", min_size=1, max_size=2)
nodes = st.builds(
    Node,
    name=names,
    operator=st.sampled_from(["Conv", "Relu", "Cast"]),
    provider=st.sampled_from(["CPU", "GPU"]),
    dtype=st.sampled_from([None, "float32", "float16", "int8"]),
)


def node(operator: str = "Conv", provider: str = "CPU", dtype: str | None = "float32") -> Node:
    return Node(name="n", operator=operator, provider=provider, dtype=dtype)


@given(st.lists(nodes))
def test_precision_is_that_of_all_arithmetic(found: list[Node]) -> None:
    dtypes = {node.dtype for node in found} - {None}
    expected = "none" if not dtypes else "mixed" if len(dtypes) > 1 else next(iter(dtypes))
    assert precision_of(found) == expected


def test_a_conversion_does_not_make_a_precision_mixed() -> None:
    assert precision_of([node(dtype="int8"), node("Cast", dtype=None)]) == "int8"


def test_the_device_is_where_arithmetic_ran() -> None:
    devices = {"CPU": "cpu", "GPU": "cuda"}
    moved = node("Cast", "CPU", None)
    assert device_of([node(provider="GPU"), moved], devices) == "cuda"
    assert device_of([node(provider="GPU"), node(provider="CPU")], devices) == "mixed"
    assert device_of([moved], devices) == "cpu"
    assert device_of([], devices) == "none"
    assert device_of([node(provider="NPU")], devices) == "NPU"


@given(st.lists(nodes))
def test_counts_are_of_all_nodes(found: list[Node]) -> None:
    described = describe(found)
    assert sum(described["nodes_by_provider"].values()) == len(found)
    assert sum(one["nodes"] for one in described["operators"]) == len(found)
    keys = [(one["operator"], one["provider"], one["dtype"]) for one in described["operators"]]
    assert set(keys) == {(one.operator, one.provider, one.dtype) for one in found}
    assert len(set(keys)) == len(keys)
    assert [Node(**one) for one in described["nodes"]] == found


def test_a_long_list_of_nodes_is_left_out_and_still_counted() -> None:
    described = describe([node()] * (MOST_NODES + 1))
    assert described["nodes"] is None
    (only,) = described["operators"]
    assert only["nodes"] == MOST_NODES + 1
