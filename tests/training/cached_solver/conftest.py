"""Chunks as small as the collections of these tests."""

from __future__ import annotations

import pytest

from fixres.training.cached_solver import trunk as trunk_module


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk_module, "_CHUNK", 16)
