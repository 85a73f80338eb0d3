"""The grammar of data URIs: every setting by its name, and an address that survives its own spelling."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.data.sources.tables import SCHEME
from fixres.data.sources.uri import Address
from tests.support.opening import refusal


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("csv:t.csv?lable=x", "has no setting 'lable' - did you mean 'label'?"),
        ("csv:t.csv?label", "'label' has no value"),
        ("csv:t.csv?label=a&label=b", "'label' is given twice"),
        ("csv:", "nothing follows csv:"),
        ("torchvision:CIFAR11?root=/", "has no set 'CIFAR11' - did you mean 'CIFAR10'?"),
        ("torchvision:CIFAR10?download=yes", "download is true or false"),
        ("torchvision:CIFAR10?variant=3", "leave ?variant= out"),
        ("torchvision:DTD?variant=11", "allowed: 1, 2, 3"),
        ("hf:", "nothing follows hf:"),
        ("wds:?", "has no setting ''"),
    ],
)
def test_uris_outside_the_grammar(uri: str, message: str) -> None:
    assert message in refusal(uri)


@given(st.text(st.characters(blacklist_characters="\0"), min_size=1), st.text(min_size=1))
def test_an_address_survives_its_own_spelling(name: str, column: str) -> None:
    address = Address("csv", f"/data/{name}", {"root": f"/{name}", "label": column})
    again = SCHEME.parse(str(address).removeprefix("csv:"))
    assert (again["label"], again["root"]) == (column, str(Path(f"/{name}").absolute()))
    assert SCHEME.parse(str(again).removeprefix("csv:")) == again
    assert SCHEME.grammar is not None
    assert set(SCHEME.grammar.keys) >= set(again.options)
