"""Files of comma-separated values with any content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.core.errors import UsageError
from toolkit.data import load_splits

fields = (
    st.sampled_from(
        ["1", "-2.5", "1e3", "1e999", "nan", "inf", "", "1_0", "0x1", "\u0661", "1\0", '"', '"a',
         "a,b", "1 ", "1d3", "\ufeff", "true", "9" * 400]
    )
    | st.floats().map(str)
    | st.text(max_size=4)
)  # fmt: skip


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    header=st.lists(st.text(max_size=3) | st.sampled_from("abc"), min_size=1, max_size=3),
    rows=st.lists(st.lists(fields, min_size=1, max_size=3), max_size=12),
    ending=st.sampled_from(["\n", "\r\n", "\r", "\0"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "latin-1"]),
    kind=st.sampled_from(["regression", "classification"]),
)
def test_any_text_is_read_or_refused(
    tmp_path: Path, header: list[str], rows: list[list[str]], ending: str, encoding: str, kind: str
) -> None:
    text = ending.join(",".join(row) for row in [header, *rows])
    (tmp_path / "rows.csv").write_bytes(text.encode(encoding, "replace"))
    read_or_refused(tmp_path / "rows.csv", kind)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    column=st.lists(fields.filter(lambda text: not set(text) & set(',"\r\n\0')), min_size=10,
                    max_size=14),
    kind=st.sampled_from(["regression", "classification"]),
)  # fmt: skip
def test_any_column_is_read_or_refused(tmp_path: Path, column: list[str], kind: str) -> None:
    text = "a,b\n" + "".join(f"{field},{place % 3}\n" for place, field in enumerate(column))
    (tmp_path / "rows.csv").write_bytes(text.encode("utf-8", "replace"))
    read_or_refused(tmp_path / "rows.csv", kind)


def read_or_refused(path: Path, kind: str) -> None:
    try:
        splits = load_splits(str(path), settings={"kind": kind})
    except UsageError:
        return
    assert np.isfinite(splits.train.inputs).all()


@pytest.mark.parametrize("field", ["0x1", "1\0", "1e99", "9" * 200_000])
def test_a_field_that_numpy_does_not_take_is_told(tmp_path: Path, field: str) -> None:
    rows = "".join(f"{place},{place}\n" for place in range(12))
    (tmp_path / "rows.csv").write_text(f"a,b\n{field},1\n{rows}")
    with pytest.raises(UsageError, match=r"rows\.csv: "):
        load_splits(str(tmp_path / "rows.csv"))
