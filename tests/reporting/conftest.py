"""Runs a report is about: with a fix, and with what it answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.report_pages import answer, fixed_events, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a fix."""
    return write_run(tmp_path_factory.mktemp("runs") / "cells", fixed_events())


@pytest.fixture
def answered_run(tmp_path: Path) -> Path:
    """A finished run with a fix that wrote what it answered."""
    folder = write_run(tmp_path / "cells", fixed_events())
    answer(folder)
    return folder
