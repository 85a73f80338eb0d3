"""Every chart and sheet of a report as a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fixres.cli.commands.report import report


def test_png_writes_every_chart_and_sheet(answered_run: Path, tmp_path: Path) -> None:
    assert report([str(answered_run), "--out", str(tmp_path / "r.html"), "--png", str(tmp_path / "png")]) == 0
    names = {path.name for path in (tmp_path / "png").iterdir()}
    assert names == {
        *(f"accuracy-against-{what}.png" for what in ("size", "cost")),
        *(f"training-{what}.png" for what in ("loss", "accuracy-while-training", "learning-rate")),
        *(f"{what}.png" for what in ("result", "confusion", "calibration", "hardest", "most-confused")),
        "as-the-network-sees-them.png",
    }
    for path in (tmp_path / "png").iterdir():
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert pixels.std() > 5, path
        # The stand-ins by which an SVG's colours are found must not be seen in a picture.
        if path.name.startswith(("accuracy", "training", "calibration", "confusion")):
            assert not ((pixels[..., 0] == 1) & (pixels[..., 1] == 1) & (pixels[..., 2] <= 12)).any(), path
