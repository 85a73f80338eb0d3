"""Reading fast changes nothing a user could miss: small decodes, split held in memory, any workers, any start."""

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
from torchvision.transforms import RandomResizedCrop, v2

from fixres.config.recipe import Data, Stage
from fixres.data import scaled_decode, transforms
from fixres.data.collections import Split, open_collection
from fixres.data.decode import BadImage, decode
from fixres.data.in_memory import can_hold
from fixres.data.loader import Batch, evaluation_batches, train_batches
from fixres.data.sampling import _hash, _keys, sample_draws
from fixres.data.scaled_decode import ScaledJpeg, open_for_crop, shrink_for
from fixres.data.transforms import random_box
from fixres.resolution import Preprocess
from tests.support.reading import drawn

BILINEAR = Image.Resampling.BILINEAR


def stage(**values: Any) -> Stage:
    """Return a stage of 32 px, two epochs and batches of 4, with the given fields."""
    defaults: dict[str, Any] = {
        "enabled": True, "size": 32, "epochs": 2, "batch_size": 4, "moves": "all", "crop": "random",
        "crop_scale": (0.2, 1.0), "augment": "flip", "lr": 0.1, "schedule": "cosine", "warmup_epochs": 0,
        "weight_decay": 0, "label_smoothing": 0, "mixup": 0, "cutmix": 0, "ema": False, "solver": "sgd",
        "start_from": "raw",
    }  # fmt: skip
    return Stage(**(defaults | values))


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return smooth structure without any symmetry."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, orientation: int = 1, **options: Any) -> bytes:
    """Return the picture as a JPEG with that EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **({"exif": exif} if orientation > 1 else {}), **options)
    return buffer.getvalue()


def folder_of(root: Path, files: dict[str, bytes]) -> Split:
    """Return the training split of a folder with these files in two classes, by turns."""
    for k, (name, data) in enumerate(sorted(files.items())):
        path = root / "train" / "ab"[k % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for cls in "ab":
        (root / "val" / cls).mkdir(parents=True)
        picture(20, 20).save(root / "val" / cls / "0.png")
    return open_collection(Data(uri=str(root), holdout=0)).split("train")


@pytest.fixture
def photos_split(tmp_path: Path) -> Split:
    """Return 12 JPEGs of 200 x 150 and 150 x 200, some lying on their side."""
    shapes = [(200, 150), (150, 200)]
    return folder_of(
        tmp_path, {f"{k:02}.jpg": jpeg(picture(*shapes[k % 2], seed=k), (1, 1, 6, 3)[k % 4]) for k in range(12)}
    )


def trained(split: Split, chosen: Stage, **options: Any) -> list[Batch]:
    """Return all batches of a stage."""
    defaults: dict[str, Any] = {"seed": 3, "stage_index": 0, "workers": 0, "bad": []}
    return list(train_batches(split, chosen, Preprocess(32), **drawn(**(defaults | options))))


def same(first: list[Batch], second: list[Batch]) -> bool:
    """Return whether two lists of batches are bit-equal."""
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.indices, b.indices)
        for a, b in zip(first, second, strict=True)
    )


sides = st.integers(1, 600)


@settings(max_examples=150, deadline=None)
@given(sides, sides, st.sampled_from([(0.08, 1.0), (0.9, 1.0), (1.0, 1.0)]), st.integers(0, 2**32))
def test_the_random_box_is_that_of_torchvision(width: int, height: int, scale: Any, seed: int) -> None:
    aspect = (3 / 4, 4 / 3)
    torch.manual_seed(seed)
    top, left, h, w = RandomResizedCrop.get_params(torch.empty((3, height, width), device="meta"), scale, aspect)
    after = torch.rand(1)
    torch.manual_seed(seed)
    assert random_box(width, height, scale, aspect) == (left, top, left + w, top + h)
    assert torch.equal(torch.rand(1), after)


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
    opened = open_for_crop(jpeg(picture(400, 300)), "a", "apply", "white")
    assert isinstance(opened, ScaledJpeg)
    for box in ((0, 0, 400, 300), (10, 10, 210, 140), (0, 0, 400, 63)):
        opened.pixels((32, 32), BILINEAR, box)
    assert seen == [8, 4, 1]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [150, 40, 16])
def test_a_view_is_that_of_the_whole_decode_whatever_the_orientation(orientation: int, size: int) -> None:
    data = jpeg(picture(240, 180), orientation)
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
    data = jpeg(picture(90, 70))
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
    files = {f"{k}.jpg": jpeg(picture(80, 60, k)) for k in range(8)}
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
    data = too_large(jpeg(picture(80, 60)))
    for read in (lambda: open_for_crop(data, "a", "apply", "white"), lambda: decode(data, "a")):
        with pytest.raises(BadImage, match="30000 x 30000 is more than"):
            read()


def test_what_is_no_simple_jpeg_is_read_as_ever(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    picture(80, 60).save(buffer, "PNG")
    cmyk = jpeg(picture(80, 60).convert("CMYK"))
    split = folder_of(tmp_path, {"0.png": buffer.getvalue(), "1.jpg": cmyk, "2.png": buffer.getvalue(), "3.jpg": cmyk})
    assert same(trained(split, stage(), decode="fast"), trained(split, stage(), decode="full"))


def test_only_tags_of_the_header_turn_a_picture() -> None:
    upright = jpeg(picture(80, 60))
    trailer = jpeg(picture(60, 80), orientation=6)
    assert decode(upright + trailer, "a").size == (80, 60)
    assert decode(jpeg(picture(80, 60), orientation=6), "a").size == (60, 80)


def test_testing_is_always_full(photos_split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaled_decode, "decode_at", lambda *_: pytest.fail("scaled"))
    views = [v[0] for v, _, _ in evaluation_batches(photos_split, [Preprocess(32)], 5)]
    expected = [transforms.evaluation_crop(photos_split.read(k), Preprocess(32)) for k in range(12)]
    assert torch.equal(torch.cat(views), torch.stack(expected))


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
    files = {f"{k}.jpg": jpeg(picture(32, 32, k)) for k in range(8)}
    files["5.jpg"] = b"words"
    split = folder_of(tmp_path, files)
    bad: list[str] = []
    batches = trained(split, stage(crop="pad"), bad=bad, on_bad_image="skip", workers=workers)
    assert bad == ["train/b/5.jpg"]
    assert sum(len(batch.labels) for batch in batches) == 14
    with pytest.raises(BadImage, match=r"train/b/5\.jpg"):
        trained(split, stage(crop="pad"), workers=workers)


@given(st.integers(0, 2**40), st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 9)), min_size=1, max_size=5))
def test_draws_of_a_batch_are_those_of_every_sample_alone(seed: int, samples: list[tuple[int, int]]) -> None:
    indices, copies = (np.array(column, dtype=np.int64) for column in zip(*samples, strict=True))
    drawn = sample_draws(3, seed, 1, 2, indices, copies)
    for row, (index, copy) in zip(drawn, samples, strict=True):
        keys = _keys(3, _hash(seed, 1, 2, index, copy))
        assert row.tolist() == [(int(key) >> 11) * 2.0**-53 for key in keys]
