"""Every case of source_cases.py is as expected."""

import pytest
import source_cases
from source_cases import CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_source_is_read_as_it_is(case, tmp_path):
    found = source_cases.seen(case, tmp_path)
    assert source_cases.as_expected(case, found), f"expected {source_cases.shown(case)}\nseen     {source_cases.shown(found)}"
