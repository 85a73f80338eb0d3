"""Counters of several processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fixres.inference.server.prometheus import Meters


def test_counters_of_several_workers_are_summed(tmp_path: Path) -> None:
    mine = Meters(str(tmp_path))
    mine.add("pictures", 3)
    mine.set_gauges(2, 0)
    gone = np.fromfile(next(tmp_path.glob("*.meters")), dtype=np.float64)
    gone.tofile(tmp_path / "999999999.meters")
    text = mine.text()
    assert "\nfixres_pictures_total 6\n" in text
    assert "\nfixres_waiting 2\n" in text
