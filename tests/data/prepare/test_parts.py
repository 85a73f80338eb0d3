"""Names of classes and members become names of folders and files."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fixres.data.prepare.parts import below, folder_name


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
