"""The views the network sees, against torchvision and the FixRes code's own output."""

from __future__ import annotations

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

from fixres.config.recipe import Stage
from fixres.data import transforms
from fixres.data.transforms import random_box
from fixres.resolution import Preprocess
from tests.support.batches import random_crops

GOLDEN = Path(__file__).parents[1] / "golden" / "fixres_height_resize.npz"
MODES = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}
RED, WHITE = (200, 30, 30), (255, 255, 255)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return smooth structure with edges and noise, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)).resize((width, height), 3)
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse).astype(int) + noise, 0, 255).astype(np.uint8))


def stage(**values: Any) -> Stage:
    """Return a stage of 32 px without augmentation but for the given fields."""
    return random_crops(**({"size": 32, "epochs": 1, "batch_size": 4, "augment": "none"} | values))


def torchvision_view(image: Image.Image, preprocess: Preprocess) -> torch.Tensor:
    """Return what Resize + CenterCrop make of the picture."""
    chain = v2.Compose(
        [v2.Resize(preprocess.resize_size, MODES[preprocess.interpolation]), v2.CenterCrop(preprocess.size)]
    )
    return v2.functional.pil_to_tensor(chain(image))


sizes = st.integers(min_value=20, max_value=260)
interpolations = st.sampled_from(["bilinear", "bicubic"])


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.integers(8, 128), st.sampled_from([0.7, 0.875, 1.0]), interpolations)
def test_exact_equals_torchvision(width: int, height: int, size: int, ratio: float, interpolation: Any) -> None:
    preprocess = Preprocess(size, crop_ratio=ratio, interpolation=interpolation, exact=True)
    image = photo(width, height)
    assert torch.equal(transforms.evaluation_crop(image, preprocess), torchvision_view(image, preprocess))


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.integers(8, 128), st.sampled_from([0.7, 0.875, 1.0]), interpolations)
def test_one_call_is_within_one_level(width: int, height: int, size: int, ratio: float, interpolation: Any) -> None:
    preprocess = Preprocess(size, crop_ratio=ratio, interpolation=interpolation)
    image = photo(width, height)
    view = transforms.evaluation_crop(image, preprocess)
    assert view.shape == (3, size, size)
    assert view.dtype == torch.uint8
    difference = (view.int() - torchvision_view(image, preprocess).int()).abs()
    # Two passes round to whole levels: where many weights are exact halves, a few values differ by 2.
    assert difference.max() <= 2
    assert (difference > 1).sum() <= max(1, 0.005 * difference.numel())


def test_one_call_is_within_one_level_for_999_of_1000_values() -> None:
    rng = np.random.default_rng(0)
    differences = []
    for seed in range(60):
        width, height = (int(side) for side in rng.integers(100, 500, 2))
        preprocess = Preprocess(int(rng.integers(32, 225)), interpolation=("bilinear", "bicubic")[seed % 2])
        image = photo(width, height, seed)
        view = transforms.evaluation_crop(image, preprocess)
        differences.append((view.int() - torchvision_view(image, preprocess).int()).abs().flatten())
    assert (torch.cat(differences) <= 1).float().mean() >= 0.999


@pytest.mark.parametrize("index", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [64, 96])
def test_height_equals_the_code_of_fixres(index: int, size: int) -> None:
    golden = np.load(GOLDEN)
    image = Image.fromarray(golden[f"image{index}"])
    view = transforms.evaluation_crop(image, Preprocess(size, resize="height"))
    assert np.array_equal(view.numpy(), golden[f"image{index}_size{size}"])
    if index == 3:
        # A portrait of 90 x 150 is narrower than the crop: black on both sides.
        assert not view[:, :, 0].any()
        assert not view[:, :, -1].any()


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ("half", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))],
)
def test_normalise_equals_the_code_of_fixres(name: str, mean: Any, std: Any) -> None:
    golden = np.load(GOLDEN)
    images = torch.from_numpy(golden["image3_size64"])[None]
    normalised = transforms.normalise(images, mean, std)
    assert normalised.dtype == torch.float32
    expected = torch.from_numpy(golden[f"image3_size64_rows30to34_{name}"])
    assert (normalised[0, :, 30:34] - expected).abs().max() <= 2e-6


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalise_keeps_layout_and_input(layout: torch.memory_format) -> None:
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8).contiguous(memory_format=layout)
    before = images.clone()
    normalised = transforms.normalise(images, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert normalised.is_contiguous(memory_format=layout)
    assert torch.equal(images, before)


def test_squash_ignores_the_aspect() -> None:
    image = photo(200, 100)
    view = transforms.evaluation_crop(image, Preprocess(50, resize="squash"))
    expected = v2.functional.pil_to_tensor(v2.Resize((50, 50))(image))
    assert torch.equal(view, expected)


def test_pad_shows_everything_on_the_mean_colour() -> None:
    view = transforms.evaluation_crop(
        Image.new("RGB", (200, 100), RED), Preprocess(40, resize="pad", mean=(0.2, 0.4, 0.6))
    )
    colours = view.permute(1, 2, 0)
    assert colours[:10].reshape(-1, 3).unique(dim=0).tolist() == [[51, 102, 153]]
    assert colours[10:30].reshape(-1, 3).unique(dim=0).tolist() == [list(RED)]
    assert colours[30:].reshape(-1, 3).unique(dim=0).tolist() == [[51, 102, 153]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 60_000), (60_000, 1), (2, 5)])
@pytest.mark.parametrize("resize", ["shorter", "height", "squash", "pad"])
def test_odd_shapes_still_make_a_square(shape: tuple[int, int], resize: Any) -> None:
    image = Image.new("RGB", shape, RED)
    for exact in (False, True):
        assert transforms.evaluation_crop(image, Preprocess(24, resize=resize, exact=exact)).shape == (3, 24, 24)
    for crop in ("random", "pad", "center"):
        assert transforms.train_crop(image, stage(crop=crop), Preprocess(32, resize=resize)).shape == (3, 32, 32)


def drawn(image: Image.Image, chosen: Stage, preprocess: Preprocess, num: int) -> list[torch.Tensor]:
    """Return `num` training views from a fixed seed."""
    torch.manual_seed(0)
    return [transforms.train_crop(image, chosen, preprocess) for _ in range(num)]


@pytest.mark.parametrize("crop", ["random", "pad", "center"])
@pytest.mark.parametrize("augment", ["none", "flip", "dihedral", "jitter", "v1", "v2"])
def test_training_views_repeat_with_the_seed(crop: Any, augment: Any) -> None:
    image, chosen = photo(70, 50), stage(crop=crop, augment=augment)
    first, second = (drawn(image, chosen, Preprocess(32), 4) for _ in range(2))
    assert all(view.shape == (3, 32, 32) and view.dtype == torch.uint8 for view in first)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    varies = crop != "center" or augment not in ("none", "v1")
    assert any(not torch.equal(first[0], view) for view in first[1:]) == varies


@pytest.mark.parametrize("augment", ["none", "v1"])
def test_center_crop_in_training_is_the_test_crop(augment: Any) -> None:
    image = photo(90, 60)
    view = transforms.train_crop(image, stage(crop="center", augment=augment), Preprocess(32))
    assert torch.equal(view, transforms.evaluation_crop(image, Preprocess(32)))


def test_random_crop_is_one_resize_of_the_box_torchvision_draws() -> None:
    image = photo(120, 80)
    torch.manual_seed(5)
    top, left, height, width = v2.RandomResizedCrop.make_params(
        v2.RandomResizedCrop(32, (0.2, 1.0), (3 / 4, 4 / 3)), [image]
    ).values()
    cut = image.crop((left, top, left + width, top + height)).resize((32, 32), Image.Resampling.BILINEAR)
    torch.manual_seed(5)
    view = transforms.train_crop(image, stage(), Preprocess(32))
    # Inside, away from the two pixels where the box filter may look past the cut.
    difference = (view.int() - v2.functional.pil_to_tensor(cut).int()).abs()[:, 2:-2, 2:-2]
    assert difference.max() <= 1


def test_random_crop_keeps_to_its_area_range() -> None:
    ramp = np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (200, 1, 3))
    views = drawn(Image.fromarray(ramp), stage(crop_scale=(0.25, 0.25)), Preprocess(32), 200)
    spans = np.array([int(view[0, 0, -1]) - int(view[0, 0, 0]) for view in views])
    # A quarter of the area at ratio 3/4 ... 4/3 is 87 to 115 pixels wide.
    assert spans.min() >= 83
    assert spans.max() <= 116


def test_padded_crop_reaches_every_offset_and_pads_with_black() -> None:
    views = drawn(Image.new("RGB", (32, 32), WHITE), stage(crop="pad"), Preprocess(32), 400)
    black = {(int((view[0, 16] == 0).sum()), int((view[0, :, 16] == 0).sum())) for view in views}
    assert {across for across, _ in black} == set(range(5))
    assert {down for _, down in black} == set(range(5))


def corners(view: torch.Tensor) -> tuple[int, ...]:
    """Return the level of the four corners, clockwise from the top left."""
    return tuple(int(view[0, y, x]) for y, x in ((0, 0), (0, -1), (-1, -1), (-1, 0)))


@pytest.mark.parametrize(
    ("augment", "orientations"),
    [("none", 1), ("flip", 2), ("dihedral", 8)],
)
def test_policies_show_the_symmetries_they_promise(augment: Any, orientations: int) -> None:
    quarters = Image.fromarray(np.array([[10, 80], [240, 160]], dtype=np.uint8).repeat(16, 0).repeat(16, 1))
    views = drawn(quarters.convert("RGB"), stage(crop="center", augment=augment), Preprocess(32, crop_ratio=1.0), 300)
    counts = np.unique([corners(view) for view in views], axis=0, return_counts=True)[1]
    assert len(counts) == orientations
    assert counts.min() > 0.6 * 300 / orientations


@pytest.mark.parametrize(("augment", "low", "high"), [("jitter", 0.7, 1.3), ("v2", 0.95, 1.05)])
def test_colour_changes_stay_within_their_strength(augment: Any, low: float, high: float) -> None:
    views = drawn(Image.new("RGB", (40, 40), (100, 100, 100)), stage(augment=augment), Preprocess(32), 200)
    levels = np.array([float(view.float().mean()) for view in views])
    assert 100 * low - 2 <= levels.min() < 100 * low + 6
    assert 100 * high - 6 < levels.max() <= 100 * high + 2


def test_shifted_crop_follows_the_law_of_fixres() -> None:
    """A 64 px margin, left0 = 32: the centre has 1/33, every other offset 1/66; the height never moves."""
    ramp = np.zeros((96, 160, 3), dtype=np.uint8)
    ramp[:, :, 0] = np.arange(160)
    ramp[:, :, 1] = np.arange(96)[:, None]
    image = Image.fromarray(ramp)
    torch.manual_seed(0)
    num = 10_000
    crops = [transforms._shifted_crop(image, 96) for _ in range(num)]
    pixels = [crop.getpixel((0, 0)) for crop in crops]
    assert {pixel[1] for pixel in pixels} == {0}
    counts = np.bincount([pixel[0] for pixel in pixels], minlength=65)
    expected = np.full(65, num / 66)
    expected[32] = num / 33
    # 64 degrees of freedom, 99.9 % point 104.7.
    assert ((counts - expected) ** 2 / expected).sum() < 104.7


def test_v2_shifts_only_the_centre_crop_and_only_sideways() -> None:
    half = np.zeros((64, 128, 3), dtype=np.uint8)
    half[:, :64] = 100
    left_bright, top_bright = Image.fromarray(half), Image.fromarray(np.rot90(half, -1).copy()).resize((128, 64))
    chosen, preprocess = stage(crop="center", augment="v2"), Preprocess(32, crop_ratio=1.0)
    across = {int((view[0, 16] > 50).sum()) for view in drawn(left_bright, chosen, preprocess, 100)}
    assert min(across) <= 2
    assert max(across) >= 30
    assert {int((view[0, :, 16] > 50).sum()) for view in drawn(top_bright, chosen, preprocess, 30)} == {16}
    portrait = top_bright.resize((32, 64))
    assert {int((view[0, :, 16] > 50).sum()) for view in drawn(portrait, chosen, preprocess, 30)} == {16}


@pytest.mark.parametrize("resize", ["shorter", "height", "squash", "pad"])
def test_v2_works_with_every_resize(resize: Any) -> None:
    for shape in ((90, 40), (40, 90), (32, 32)):
        view = transforms.train_crop(photo(*shape), stage(crop="center", augment="v2"), Preprocess(32, resize=resize))
        assert view.shape == (3, 32, 32)


def test_only_the_default_generator_is_used() -> None:
    image = photo(60, 60)
    make: Callable[[], torch.Tensor] = lambda: transforms.train_crop(  # noqa: E731
        image, stage(crop="center", augment="v2"), Preprocess(32)
    )
    torch.default_generator.manual_seed(11)
    np.random.seed(1)
    first = make()
    torch.default_generator.manual_seed(11)
    np.random.seed(2)
    assert torch.equal(first, make())


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
