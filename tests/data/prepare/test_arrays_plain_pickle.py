"""Pickles of plain values: whatever they hold, nothing else is made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fixres.data.prepare.arrays import read_plain_pickle
from fixres.errors import UserError


@given(st.binary(max_size=300))
def test_no_pickle_does_more_than_be_refused(content: bytes) -> None:
    try:
        value = read_plain_pickle(content, "it")
    except UserError:
        return
    assert type(value).__module__ in ("builtins", "fixres.data.prepare.arrays")
