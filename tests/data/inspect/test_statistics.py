"""`fixres data stats`: exact numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fixres.config.recipe import Data
from fixres.data.decode import BadImage
from fixres.data.inspect.statistics import statistics, useful_train_size
from fixres.data.transforms import evaluation_crop
from fixres.resolution import Preprocess
from tests.support.scenes import put, scene, train_split


def test_mean_and_std_are_those_of_every_pixel(sound: Path) -> None:
    found = statistics(Data(uri=str(sound)), 0, size=32)
    split = train_split(sound)
    views = [evaluation_crop(split.read(i), Preprocess(32, crop_ratio=1.0)).numpy() for i in range(len(split))]
    pixels = np.stack(views).transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert found.mean == pytest.approx(pixels.mean(axis=1), abs=1e-12)
    assert found.std == pytest.approx(pixels.std(axis=1), abs=1e-12)
    assert found.mean_std_split == "train"


def test_counts_sizes_and_weights(sound: Path) -> None:
    for i in range(9, 12):
        (sound / "train" / "dog" / f"{i:02}.jpg").unlink()
    put(sound / "train" / "dog" / "00.jpg", b"")
    put(sound / "test" / "cat" / "big.png", b"")
    scene(1, 800, 600).save(sound / "test" / "cat" / "big.png")
    found = statistics(Data(uri=str(sound)), 0)
    assert found.counts == {"train": {"cat": 12, "dog": 8}, "test": {"cat": 5, "dog": 4}}
    assert found.unreadable == {"train": 1, "test": 0}
    lines = [line.split() for line in found.as_text().splitlines()]
    assert ["cat", "12", "5"] in lines
    assert ["dog", "8", "4"] in lines
    assert ["pictures", "20", "9"] in lines
    assert any(line[:3] == ["unreadable", "1", "0"] for line in lines)
    assert found.quantiles["width"][0] == 160
    assert found.quantiles["width"][-1] == 800
    assert found.quantiles["megapixels"][-1] == pytest.approx(0.48)
    assert found.extensions == {".jpg": 28, ".png": 1}
    assert found.imbalance == 1.5
    weights = found.class_weights
    assert weights["dog"] / weights["cat"] == pytest.approx(1.5)
    assert (12 * weights["cat"] + 8 * weights["dog"]) / 20 == pytest.approx(1)
    stored = json.loads(found.as_json())
    assert stored["num_images"] == {"train": 20, "test": 9}


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(5):
            put(tmp_path / name / f"{i}.jpg", b"no picture")
    with pytest.raises(BadImage, match="none of the pictures"):
        statistics(Data(uri=str(tmp_path)), 0)


@pytest.mark.parametrize(("short", "size"), [(28, 28), (32, 32), (64, 32), (300, 192), (375, 256)])
def test_the_train_size_leaves_room_for_the_fix(short: int, size: int) -> None:
    assert useful_train_size(short) == size


def test_a_class_name_with_a_line_end_stays_on_its_line(sound: Path) -> None:
    for part in ("train", "test"):
        (sound / part / "dog").rename(sound / part / "do\ng")
    lines = statistics(Data(uri=f"folder:{sound}"), 0).as_text().splitlines()
    assert sum(line.startswith("do\\ng ") for line in lines) == 1
