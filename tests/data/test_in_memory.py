"""A split held in memory: read once, with the views it would have had."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fixres.config.recipe import Stage
from fixres.data.decode import BadImage
from fixres.data.in_memory import can_hold
from fixres.data.loader import Batch
from fixres.data.splits import Split
from fixres.resolution import Preprocess
from tests.support.batches import random_crops, same, training_batches
from tests.support.pictures import folder_of, jpeg, mixed_jpegs, structure


def stage(**values: Any) -> Stage:
    """Return a stage of 32 px, two epochs and batches of 4, with the given fields."""
    return random_crops(**({"size": 32, "epochs": 2, "batch_size": 4, "augment": "flip"} | values))


def trained(split: Split, chosen: Stage, **options: Any) -> list[Batch]:
    """Return all batches of a stage."""
    return training_batches(split, chosen, **({"seed": 3} | options))


@pytest.fixture
def photos_split(tmp_path: Path) -> Split:
    return mixed_jpegs(tmp_path)


@pytest.fixture
def squares(tmp_path: Path) -> Split:
    """Return 20 different pictures of 32 x 32 without any black in them."""
    files = {}
    for k in range(20):
        pixels = np.random.default_rng(k).integers(1, 256, (32, 32, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        files[f"{k:02}.png"] = buffer.getvalue()
    return folder_of(tmp_path, files)


def test_what_is_held() -> None:
    view = Preprocess(32)
    assert can_hold(50_000, stage(crop="pad"), view, 1.0)
    assert can_hold(50_000, stage(crop="center", augment="v1"), view, 1.0)
    for chosen in (
        stage(crop="random"),
        stage(crop="pad", augment="jitter"),
        stage(crop="pad", augment="v2"),
        stage(crop="pad", erasing=0.5),
        stage(crop="pad", rotation=(0, 10)),
        stage(crop="pad", vertical_flip=0.5),
        stage(crop="pad", epochs=1),
    ):
        assert not can_hold(50, chosen, view, 1.0)
    assert not can_hold(50, stage(crop="pad"), view, 0)
    assert can_hold(2**30 // 3072, stage(crop="pad"), view, 1.0)
    assert not can_hold(2**30 // 3072 + 1, stage(crop="pad"), view, 1.0)


def test_held_pictures_are_read_once(squares: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = Split.read
    monkeypatch.setattr(Split, "read", lambda self, index, *rest: reads.append(index) or read(self, index, *rest))
    trained(squares, stage(crop="pad", epochs=3))
    assert sorted(reads) == list(range(20))
    reads.clear()
    trained(squares, stage(crop="pad", epochs=3), hold_gib=0)
    assert len(reads) == 60


def test_held_views_are_the_padded_picture_at_a_place_flipped_or_not(squares: Split) -> None:
    """Every view is looked up among all 81 places and both directions; both coordinates and flips are uniform."""
    known = {}
    for index in range(20):
        padded = np.pad(np.asarray(squares.read(index)), ((4, 4), (4, 4), (0, 0)))
        for y in range(9):
            for x in range(9):
                view = padded[y : y + 32, x : x + 32]
                known[view.tobytes()] = (index, x, y, False)
                known[view[:, ::-1].tobytes()] = (index, x, y, True)
    found = []
    for batch in trained(squares, stage(crop="pad", epochs=60)):
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        for image, index, label in zip(batch.images, batch.indices.tolist(), batch.labels.tolist(), strict=True):
            found.append(known[image.permute(1, 2, 0).numpy().tobytes()])
            assert found[-1][0] == index
            assert label == squares.labels[index]
    assert len(found) == 1200
    _, x, y, flipped = (np.array(column) for column in zip(*found, strict=True))
    for coordinate in (x, y):
        counts = np.bincount(coordinate, minlength=9)
        # Chi-square with 8 degrees of freedom: 1 in 10,000 lies above 32.
        assert ((counts - 1200 / 9) ** 2 / (1200 / 9)).sum() < 32
    assert abs(flipped.mean() - 0.5) < 0.06
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.12


def test_held_views_follow_from_the_picture_not_from_the_batch(squares: Split) -> None:
    by_size = []
    for batch_size in (2, 5, 20):
        batches = trained(squares, stage(crop="pad", batch_size=batch_size))
        by_size.append(torch.cat([batch.images for batch in batches]))
    assert torch.equal(by_size[0], by_size[1])
    assert torch.equal(by_size[0], by_size[2])
    assert not torch.equal(by_size[0], torch.cat([b.images for b in trained(squares, stage(crop="pad"), seed=4)]))


def test_copies_of_a_held_picture_differ(squares: Split) -> None:
    views: dict[int, set[bytes]] = {}
    for batch in trained(squares, stage(crop="pad", repeats=4, epochs=4, epoch_samples=4.0)):
        for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
            views.setdefault(index, set()).add(image.numpy().tobytes())
    assert min(len(seen) for seen in views.values()) >= 12


@pytest.mark.parametrize("augment", ["none", "v1"])
def test_holding_test_time_views_changes_no_bit(photos_split: Split, augment: str) -> None:
    chosen = stage(crop="center", augment=augment)
    assert same(trained(photos_split, chosen), trained(photos_split, chosen, hold_gib=0))


def test_pictures_that_are_not_square_are_padded_as_ever(photos_split: Split) -> None:
    assert same(trained(photos_split, stage(crop="pad")), trained(photos_split, stage(crop="pad"), hold_gib=0))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_picture_among_held_ones_is_left_out_and_listed(tmp_path: Path, workers: int) -> None:
    files = {f"{k}.jpg": jpeg(structure(32, 32, k)) for k in range(8)}
    files["5.jpg"] = b"words"
    split = folder_of(tmp_path, files)
    bad: list[str] = []
    batches = trained(split, stage(crop="pad"), bad=bad, on_bad_image="skip", workers=workers)
    assert bad == ["train/b/5.jpg"]
    assert sum(len(batch.labels) for batch in batches) == 14
    with pytest.raises(BadImage, match=r"train/b/5\.jpg"):
        trained(split, stage(crop="pad"), workers=workers)
