"""Sets whose table takes miniatures for the published files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixres.data.prepare.known_sets import SETS
from tests.support import archive_makers as made
from tests.support.known_sets import Files, shrink_cub


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sync", lambda: None)


@pytest.fixture
def shrink(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that gives a set the checksums of `files`, and the counts of a miniature."""

    def shrink(name: str, files: Files, counts: dict[str, int], num_classes: int, **fields: Any) -> None:
        info = SETS[name]
        sources = {
            key: dataclasses.replace(file, md5=made.md5(files[file.names[0]]) if file.names[0] in files else file.md5)
            for key, file in info.files.items()
        }
        small = dataclasses.replace(info, files=sources, counts=counts, num_classes=num_classes, **fields)
        monkeypatch.setitem(SETS, name, small)

    return shrink


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with CUB's archive in miniature, which the table takes for the published one."""
    monkeypatch.setitem(SETS, "cub-200-2011", SETS["cub-200-2011"])
    files = made.cub()
    shrink_cub(files)
    made.write_all(tmp_path / "from", files)
    return tmp_path / "from"
