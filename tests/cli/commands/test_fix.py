"""`fixres fix` on other pictures than those of the training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.support.command_line import FAST, Run


def test_a_fix_on_other_pictures_has_a_split_of_its_own(fixres: Run, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "train", tmp_path / "flat")
    fixres("train", "--data.uri", photos, *FAST, "--out", "run")
    code, _, err = fixres("fix", "run", "--size", "48", "--epochs", "1", "--data", tmp_path / "flat", "--out", "f")
    assert code == 0, err
    assert set(json.loads((tmp_path / "f" / "split.json").read_text())["parts"]) == {"val", "test"}
