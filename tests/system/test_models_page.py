"""The page about architectures, network by network: built, run at two sizes, and compared with what is committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.docs.models_page import models_page, page_row, tried_names

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
LINES = {line.split("`")[1]: f"{line}\n" for line in PAGE.splitlines() if line.startswith("| `")}

pytestmark = pytest.mark.system


def test_the_page_has_every_network_and_nothing_else() -> None:
    assert models_page(LINES.__getitem__) == PAGE
    assert len(LINES) == len(tried_names()) >= 60


@pytest.mark.parametrize("name", tried_names())
def test_a_network_runs_as_the_page_says(name: str) -> None:
    assert page_row(name) == LINES[name]
