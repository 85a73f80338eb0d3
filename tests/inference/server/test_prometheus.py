"""Counters of several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fixres.errors import fixres_version
from fixres.inference.server.prometheus import FOLDER


def test_counters_of_several_workers_are_summed(tmp_path: Path) -> None:
    # The library asks at its import whether there are several workers.
    code = """
import sys
from fixres.inference.server.prometheus import Meters
mine = Meters(sys.argv[1])
mine.pictures.inc(3)
mine.answered("/v1/predict", 200, 0.7)
mine.set_gauges(2, 0)
print(mine.text())
"""
    environment = {**os.environ, FOLDER: str(tmp_path)}
    for _ in range(2):
        command = [sys.executable, "-c", code, str(tmp_path)]
        text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "\nfixres_pictures_total 6\n" in text
    assert "\nfixres_waiting 2\n" in text
    assert '\nfixres_requests_total{endpoint="/v1/predict",status="200"} 2\n' in text
    assert '\nfixres_answer_seconds_bucket{le="0.5"} 0\nfixres_answer_seconds_bucket{le="1"} 2\n' in text
    assert f'\nfixres_info{{version="{fixres_version()}"}} 1\n' in text
    assert len(list(tmp_path.glob("gauge_livesum_*.db"))) == 1
