"""A folder without a fault, for every test to spoil."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.scenes import sound_folder


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Return a folder without a fault: two classes, 12 training and 4 test pictures of each."""
    return sound_folder(tmp_path / "sound")
