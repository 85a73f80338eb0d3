"""One served run, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.support.serving import client_of, make_run
from tests.support.shared_runs import require_untouched, shared_run


@pytest.fixture(scope="session")
def run(shared_folder: Path) -> Iterator[Path]:
    """Yield a run trained at 32 px and fixed at 48 without training epochs. To be read, never written."""
    made = shared_run(shared_folder, "served", make_run)
    yield made
    require_untouched(made)


@pytest.fixture(scope="session")
def client(run: Path) -> Iterator[TestClient]:
    with client_of(run) as opened:
        yield opened
