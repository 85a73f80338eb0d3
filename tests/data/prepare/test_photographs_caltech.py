"""Caltech's folder of clutter, dropped or kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.data.prepare.known_sets import SETS
from fixres.data.prepare.parts import Options
from fixres.data.prepare.writer import prepare
from tests.support.known_sets import CASES, by_path, prepared


@pytest.mark.parametrize("name", ["caltech101", "caltech256"])
def test_clutter_is_dropped_or_kept(name: str, shrink: Callable[..., None], tmp_path: Path) -> None:
    make, counts, num_classes = CASES[name]
    files = make()
    background = (SETS[name].background[0], 2)
    shrink(name, files, counts, num_classes, background=background)
    report = prepared(name, files, tmp_path)
    assert any(f"2 pictures of {background[0]} left out" in note for note in report.notes)
    assert not any(background[0] in path for path in by_path(tmp_path / "out"))
    kept = prepare(name, tmp_path / "from", tmp_path / "kept", options=Options(keep_background=True))
    assert (kept.counts, kept.num_classes, kept.is_complete) == ({"": 12}, 3, True)
