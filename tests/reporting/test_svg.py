"""Charts of names in any script."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.reporting import svg
from fixres.reporting.charts import confusion_heatmap
from fixres.reporting.figures import draw_intervals, draw_pictures
from fixres.reporting.gallery import Picture

NAMES = ["猫", "고양이", "قطة", "🐈", "$\\frac{1}{2}$", "cat"]


@pytest.fixture(autouse=True)
def _any_warning_fails() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_class_names_in_any_script_are_drawn_without_a_warning(tmp_path: Path) -> None:
    chart = confusion_heatmap(np.eye(len(NAMES), dtype=int).tolist(), "Confusion", NAMES)
    assert all(name in chart for name in NAMES)
    assert Image.open(io.BytesIO(chart.png())).width > 100
    draw_intervals([(name, 50.0, (40.0, 60.0)) for name in NAMES], tmp_path / "result.png")
    pixel = io.BytesIO()
    Image.new("RGB", (4, 4)).save(pixel, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(pixel.getvalue()).decode()
    shown = [Picture(uri, "", 100.0, name, name, "50 %", False) for name in NAMES]
    draw_pictures("猫", [("🐈", shown)], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 0


def test_only_fonts_that_are_there_are_asked_for() -> None:
    # A font that is missing would be named in a line of its own for every text.
    there = {font.name for font in svg.fontManager.ttflist}
    assert svg._fonts()[0] == "DejaVu Sans"
    assert set(svg._fonts()) <= there
