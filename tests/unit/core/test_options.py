"""Options of plugins: any value is either understood or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.errors import UsageError
from toolkit.core.options import Option

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("default", [True, 3, 0.5, "relu"])
@given(value=JSON_VALUES)
def test_a_value_becomes_one_of_the_default_type_or_is_refused(default, value):
    try:
        parsed = Option(default=default, help="An option.").parse("name", value)
    except UsageError:
        return
    assert type(parsed) is type(default)


@pytest.mark.parametrize("value", [None, [], {}, [1]])
@pytest.mark.parametrize("default", [True, 3, 0.5, "relu"])
def test_a_value_that_is_no_scalar_is_refused(default, value):
    with pytest.raises(UsageError, match="expected"):
        Option(default=default, help="An option.").parse("name", value)


@pytest.mark.parametrize("default", [3, 0.5, "relu"])
def test_a_bool_is_no_number_and_no_text(default):
    with pytest.raises(UsageError, match="expected"):
        Option(default=default, help="An option.").parse("name", True)
