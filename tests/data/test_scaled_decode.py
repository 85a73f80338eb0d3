"""JPEGs decoded no larger than a crop needs: the same crops, and nothing a user could miss."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from fixres.config.recipe import Stage
from fixres.data import scaled_decode, transforms
from fixres.data.decode import BadImage, decode
from fixres.data.loader import Batch, evaluation_batches
from fixres.data.scaled_decode import ScaledJpeg, open_for_crop, shrink_for
from fixres.data.splits import Split
from fixres.resolution import Preprocess
from tests.support.batches import random_crops, same, training_batches
from tests.support.pictures import folder_of, jpeg, mixed_jpegs, structure

BILINEAR = Image.Resampling.BILINEAR


def stage(**values: Any) -> Stage:
    """Return a stage of 32 px, two epochs and batches of 4, with the given fields."""
    return random_crops(**({"size": 32, "epochs": 2, "batch_size": 4, "augment": "flip"} | values))


@pytest.fixture
def photos_split(tmp_path: Path) -> Split:
    return mixed_jpegs(tmp_path)


def trained(split: Split, chosen: Stage, **options: Any) -> list[Batch]:
    """Return all batches of a stage."""
    return training_batches(split, chosen, **({"seed": 3} | options))


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64), st.data())
def test_a_crop_keeps_the_pixels_the_network_asks_for(width: int, height: int, size: int, data: Any) -> None:
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    shrink = shrink_for((left, top, right, bottom), (size, size))
    assert shrink in (1, 2, 4, 8)
    shorter = min(right - left, bottom - top)
    assert shrink == 1 or shorter >= shrink * size
    assert shrink == 8 or shorter < 2 * shrink * size
    file = jpeg(Image.new("RGB", (width, height), (10, 200, 30)))
    decoded = scaled_decode.decode_at(file, (width, height), shrink)
    assert decoded.shape[:2] == (-(-height // shrink), -(-width // shrink))
    view = ScaledJpeg(file, "a", "apply", "white", (width, height)).pixels(
        (size, size), BILINEAR, (left, top, right, bottom)
    )
    assert view.shape == (size, size, 3)
    assert np.abs(view.astype(int) - (10, 200, 30)).max() <= 3


def test_a_large_crop_is_decoded_small_and_a_small_one_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    decode_at = scaled_decode.decode_at
    monkeypatch.setattr(scaled_decode, "decode_at", lambda d, s, shrink: seen.append(shrink) or decode_at(d, s, shrink))
    opened = open_for_crop(jpeg(structure(400, 300)), "a", "apply", "white")
    assert isinstance(opened, ScaledJpeg)
    for box in ((0, 0, 400, 300), (10, 10, 210, 140), (0, 0, 400, 63)):
        opened.pixels((32, 32), BILINEAR, box)
    assert seen == [8, 4, 1]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [150, 40, 16])
def test_a_view_is_that_of_the_whole_decode_whatever_the_orientation(orientation: int, size: int) -> None:
    data = jpeg(structure(240, 180), orientation)
    whole = decode(data, "a")
    opened = open_for_crop(data, "a", "apply", "white")
    assert isinstance(opened, ScaledJpeg)
    assert (opened.width, opened.height) == whole.size
    # Corners on the grid of blocks, so that no side of the box is rounded.
    box = (8, 16, 152, 168)
    view = opened.pixels((size, size + 4), BILINEAR, box).astype(int)
    expected = np.asarray(whole.crop(box).resize((size, size + 4), BILINEAR)).astype(int)
    assert view.shape == expected.shape
    # Turned after the resize in place of before it: rounding differs. Scaled: the low-pass differs.
    limit = 1 if shrink_for(box, (size, size + 4)) == 1 else 4
    assert np.abs(view - expected).max() <= limit
    ignored = open_for_crop(data, "a", "ignore", "white")
    assert (ignored.width, ignored.height) == (240, 180)


@given(st.integers(1, 3000), st.sampled_from([2, 4, 8]), st.data())
def test_a_box_is_moved_by_at_most_a_scaled_pixel(length: int, shrink: int, data: Any) -> None:
    first = data.draw(st.integers(0, length - 1))
    last = data.draw(st.integers(first + 1, length))
    limit = -(-length // shrink)
    start, end = scaled_decode._scaled(first, last, limit / length, limit)
    assert 0 <= start < end <= limit
    assert abs(start - first * limit / length) <= 1
    assert end - start == 1 or abs(end - start - (last - first) * limit / length) <= 0.5


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_crop_that_is_not_scaled_is_that_of_torchvision(interpolation: Any) -> None:
    data = jpeg(structure(90, 70))
    mode = v2.InterpolationMode(interpolation)
    for seed in range(20):
        torch.manual_seed(seed)
        chosen = stage(size=64, augment="none", crop_scale=(0.3, 0.6))
        opened = open_for_crop(data, "a", "apply", "white")
        view = transforms.train_crop(opened, chosen, Preprocess(64, interpolation=interpolation))
        torch.manual_seed(seed)
        expected = v2.RandomResizedCrop(64, (0.3, 0.6), interpolation=mode)(decode(data, "a"))
        difference = (view.int() - v2.functional.pil_to_tensor(expected).int()).abs()
        # Twice rounded, a few values of a bicubic enlargement differ by 2.
        assert difference.max() <= (1 if interpolation == "bilinear" else 2)
        assert (difference <= 1).float().mean() >= 0.998


@pytest.mark.parametrize("augment", ["none", "flip", "jitter"])
def test_fast_and_full_show_the_same_crops(photos_split: Split, augment: str) -> None:
    fast, full = (trained(photos_split, stage(augment=augment), decode=decode) for decode in ("fast", "full"))
    for a, b in zip(fast, full, strict=True):
        assert torch.equal(a.indices, b.indices)
        difference = (a.images.int() - b.images.int()).abs().float().mean(dim=(1, 2, 3))
        other = (a.images.int() - b.images.int().roll(1, 0)).abs().float().mean(dim=(1, 2, 3))
        # Half a pixel in place; another picture is another matter.
        assert difference.max() < 8
        assert other.min() > 16
    assert not same(fast, full)


def test_full_is_the_whole_decode_and_the_pillow_crop(photos_split: Split) -> None:
    chosen = stage(augment="none", crop_scale=(1.0, 1.0), crop_aspect=(0.5, 2.0), epochs=1)
    shown = 0
    for batch in trained(photos_split, chosen, decode="full"):
        for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
            expected = np.asarray(photos_split.read(index).resize((32, 32), BILINEAR))
            shown += np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert shown > 0


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("crop", ["random", "pad", "center"])
def test_batches_do_not_depend_on_workers_or_start(photos_split: Split, crop: str, workers: int) -> None:
    chosen = stage(crop=crop)
    whole = trained(photos_split, chosen)
    assert len(whole) == 6
    assert same(trained(photos_split, chosen, workers=workers), whole)
    for first in (1, 3, 5, 6):
        assert same(trained(photos_split, chosen, workers=workers, first_step=first), whole[first:])


def damaged(data: bytes) -> bytes:
    """Return the first two thirds of a file."""
    return data[: len(data) * 2 // 3]


def too_large(data: bytes) -> bytes:
    """Return a JPEG whose header claims 30,000 x 30,000 pixels."""
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + (30_000).to_bytes(2, "big") * 2 + data[place + 4 :]


@pytest.mark.parametrize("harm", [damaged, too_large, lambda data: b"\xff\xd8\xffwords", lambda data: b""])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_jpeg_is_left_out_and_listed(tmp_path: Path, harm: Callable[[bytes], bytes], workers: int) -> None:
    files = {f"{k}.jpg": jpeg(structure(80, 60, k)) for k in range(8)}
    files["4.jpg"] = harm(files["4.jpg"])
    split = folder_of(tmp_path, files)
    bad: list[str] = []
    batches = trained(split, stage(), bad=bad, on_bad_image="skip", workers=workers)
    assert bad == ["train/a/4.jpg"]
    assert sorted(len(batch.labels) for batch in batches) == [3, 3, 4, 4]
    with pytest.raises(BadImage, match=r"train/a/4\.jpg: "):
        trained(split, stage(), workers=workers)


def test_the_pixel_limit_comes_before_any_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaled_decode.simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    data = too_large(jpeg(structure(80, 60)))
    for read in (lambda: open_for_crop(data, "a", "apply", "white"), lambda: decode(data, "a")):
        with pytest.raises(BadImage, match="30000 x 30000 is more than"):
            read()


def test_what_is_no_simple_jpeg_is_read_as_ever(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    structure(80, 60).save(buffer, "PNG")
    cmyk = jpeg(structure(80, 60).convert("CMYK"))
    split = folder_of(tmp_path, {"0.png": buffer.getvalue(), "1.jpg": cmyk, "2.png": buffer.getvalue(), "3.jpg": cmyk})
    assert same(trained(split, stage(), decode="fast"), trained(split, stage(), decode="full"))


def test_testing_is_always_full(photos_split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaled_decode, "decode_at", lambda *_: pytest.fail("scaled"))
    views = [v[0] for v, _, _ in evaluation_batches(photos_split, [Preprocess(32)], 5)]
    expected = [transforms.evaluation_crop(photos_split.read(k), Preprocess(32)) for k in range(12)]
    assert torch.equal(torch.cat(views), torch.stack(expected))
