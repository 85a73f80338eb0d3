"""Names of classes and members become names of folders and files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.data.prepare.parts import below, folder_name, read_pairs
from fixres.errors import UserError


@given(st.text(min_size=1))
def test_class_names_become_names_of_folders(label: str) -> None:
    found = folder_name(label)
    assert not set(found) & set("/\\")
    # Nothing else changes.
    assert len(found) == len(label.strip())
    assert all(new in (old, "-") for new, old in zip(found, label.strip(), strict=True))
    assert folder_name("Ram C/V Cargo Van") == "Ram C-V Cargo Van"


def test_the_top_folder_may_be_missing() -> None:
    assert below("CUB/images/a.jpg", "CUB") == below("images/a.jpg", "CUB") == "images/a.jpg"


@pytest.mark.parametrize("line", ["val_1.JPEG", "val_1.JPEG\t\t0\t0\t9\t9"])
def test_a_line_without_its_value_is_refused_with_its_number(line: str) -> None:
    with pytest.raises(UserError, match="list, line 2: a picture and its class are expected"):
        read_pairs(f"val_0.JPEG\tn01443537\t0\t32\t44\t62\n{line}\n", "list", "a picture and its class", "\t")
