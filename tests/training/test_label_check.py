"""`fixres data check URI --labels CKPT`: wrong labels are found in a folder of pictures, whatever else is in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.cli.main import main

COLOURS = {"blue": (40, 60, 200), "green": (40, 190, 70), "red": (200, 50, 40)}
WRONG = {"green/b-07.png": "blue", "blue/r-11.png": "red", "red/g-03.png": "green"}
"""Pictures in a folder of another colour than their own."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    homes = {path.split("/")[1]: path for path in WRONG}
    for name, colour in COLOURS.items():
        for number in range(25):
            file = f"{name[0]}-{number:02}.png"
            path = tmp_path / "photos" / "train" / homes.get(file, f"{name}/{file}")
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.normal(0, 20, (40, 40, 3))
            Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(path)
    return tmp_path / "photos"


def test_labels_that_pictures_like_them_contradict_are_listed(
    photos: Path, fixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # What cannot be read is told, and stops nothing.
    (photos / "train" / "red" / "r-99.png").write_bytes(b"no picture")
    answer = tmp_path / "check.json"
    words = ["data", "check", str(photos), "--labels", str(fixed_run), "--workers", "0", "--json", str(answer)]
    assert main(words) == 2
    found = {one["kind"]: one for one in json.loads(answer.read_text())["findings"]}
    doubted = [item["pictures"][0] for item in found["suspected label"]["items"]]
    assert {one["path"] for one in doubted[:3]} == {f"train/{path}" for path in WRONG}
    for item in found["suspected label"]["items"][:3]:
        (picture,) = item["pictures"]
        assert f"labelled {picture['class']}" in item["detail"]
        assert f"looks like {WRONG[picture['path'].removeprefix('train/')]}" in item["detail"]
    assert found["not a picture"]["num"] == 1
    said = capsys.readouterr()
    assert "labels compared with 5 heads on frozen features of test_resnet at 48 px" in said.out
    assert "look at them" in said.out


def test_a_collection_with_nothing_to_compare_is_told(
    fixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in COLOURS:
        path = tmp_path / "single" / name / "a.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (40, 40), COLOURS[name]).save(path)
    assert main(["data", "check", str(tmp_path / "single"), "--labels", str(fixed_run), "--workers", "0"]) == 0
    said = capsys.readouterr().out
    assert "labels were not compared: no class of" in said
    assert "few pictures" in said
