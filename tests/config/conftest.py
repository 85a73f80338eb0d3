"""The file that tests of recipes write."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    return tmp_path / "my.yaml"
