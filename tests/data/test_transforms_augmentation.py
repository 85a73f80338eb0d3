"""The augmentation beyond crop and flip: what each option does, its order, its chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from fixres.cli.main import main
from fixres.config.loading import load
from fixres.config.recipe import Stage
from fixres.data import transforms
from fixres.data.transforms import normalise, train_crop
from fixres.errors import UserError
from fixres.resolution import Preprocess, apparent_ratio
from tests.support.pictures import ramp, smooth

PLAIN: dict[str, Any] = {"crop": "random", "crop_scale": (0.2, 1.0), "augment": "none"}


def stage(**values: Any) -> Stage:
    """Return a stage that augments so; what else a stage says plays no part."""
    return Stage.model_construct(**(PLAIN | values))


def views(image: Image.Image, num: int = 12, size: int = 32, **values: Any) -> list[torch.Tensor]:
    """Return training views of a picture, the k-th from seed k."""
    chosen, made = stage(**values), []
    for seed in range(num):
        torch.default_generator.manual_seed(seed)
        made.append(train_crop(image, chosen, Preprocess(size)))
    return made


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Return the statistic of observed against expected counts."""
    return float(((counts - expected) ** 2 / expected).sum())


OPTIONS: list[dict[str, Any]] = [
    {"augment": "trivial"},
    {"augment": "randaugment"},
    {"vertical_flip": 0.5},
    {"rotation": (0.0, 270.0)},
    {"erasing": 0.5},
    {"crop_aspect": (0.2, 5.0)},
    {"interpolation": "bicubic"},
    {"crop": "resize"},
]


@pytest.mark.parametrize("option", OPTIONS, ids="-".join)
def test_every_option_changes_views_and_repeats_with_the_seed(option: dict[str, Any]) -> None:
    image = smooth(80, 60)
    changed, again, plain = views(image, **option), views(image, **option), views(image)
    assert all(torch.equal(a, b) for a, b in zip(changed, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(changed, plain, strict=True))
    assert len({view.numpy().tobytes() for view in changed}) > 1
    assert all((view.shape, view.dtype) == ((3, 32, 32), torch.uint8) for view in changed)


def test_strength_and_number_of_operations_of_randaugment_count() -> None:
    image = smooth(80, 60)
    default = views(image, augment="randaugment")
    for option in ({"randaugment_ops": 4}, {"randaugment_magnitude": 25}):
        other = views(image, augment="randaugment", **option)
        assert not all(torch.equal(a, b) for a, b in zip(default, other, strict=True))


def test_numpy_and_python_chance_play_no_part() -> None:
    chosen = {"augment": "trivial", "rotation": (0.0, 270.0), "erasing": 0.5, "vertical_flip": 0.5}
    np.random.seed(1)
    first = views(smooth(60, 60), **chosen)
    np.random.seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, views(smooth(60, 60), **chosen), strict=True))


@pytest.mark.parametrize(
    ("augment", "operation"), [("trivial", v2.TrivialAugmentWide()), ("randaugment", v2.RandAugment(2, 9))]
)
def test_the_order_is_that_of_resnext_crop_policy_rotation_flips(augment: str, operation: Any) -> None:
    """torchvision's own operations in that order, with the same draws, give the view up to the two flips."""
    image = smooth(80, 60)
    seen = set()
    turn = v2.RandomRotation((0.0, 270.0))
    made = views(image, 40, augment=augment, rotation=(0.0, 270.0), vertical_flip=0.5)
    for seed, view in enumerate(made):
        torch.default_generator.manual_seed(seed)
        box = transforms.random_box(80, 60, (0.2, 1.0), (3 / 4, 4 / 3))
        cut = image.resize((32, 32), Image.Resampling.BILINEAR, box=box)
        expected = v2.functional.pil_to_tensor(turn(operation(cut)))
        flips = [torch.equal(view, expected.flip(dims)) for dims in ((), (2,), (1,), (1, 2))]
        assert any(flips)
        seen.add(flips.index(True))
    assert seen == {0, 1, 2, 3}


def test_vertical_flip_has_its_probability() -> None:
    image = ramp(32, 32)
    upside_down = [view[1, 0, 0] > view[1, -1, 0] for view in views(image, 400, crop="center", vertical_flip=0.25)]
    # 0.25 with a standard error of 0.022.
    assert 0.18 < np.mean(upside_down) < 0.32
    whole = Preprocess(32, crop_ratio=1.0)
    view = train_crop(image, stage(crop="center", vertical_flip=1.0), whole)
    assert torch.equal(view, train_crop(image, stage(crop="center"), whole).flip(1))


def test_rotation_is_counter_clockwise_continuous_and_black_outside() -> None:
    white, image = Image.new("RGB", (40, 40), "white"), ramp(40, 40)
    whole = Preprocess(40, crop_ratio=1.0)
    quarter = train_crop(image, stage(crop="center", rotation=(90.0, 90.0)), whole)
    turned = image.transpose(Image.Transpose.ROTATE_90)
    assert torch.equal(quarter, v2.functional.pil_to_tensor(turned))
    black = [float((view == 0).float().mean()) for view in views(white, 200, crop="center", rotation=(0.0, 270.0))]
    # A turn by 45 degrees loses 1 - 2 (sqrt 2 - 1) = 17 % of a square.
    assert max(black) == pytest.approx(0.17, abs=0.02)
    assert len({round(share, 3) for share in black}) > 25


def test_erasing_covers_a_rectangle_with_the_mean_colour_at_its_probability() -> None:
    mean = tuple(round(255 * channel) for channel in Preprocess(32).mean)
    made = views(Image.new("RGB", (64, 64), "white"), 400, size=64, erasing=0.3)
    shares = []
    for view in made:
        covered = (view != 255).any(dim=0)
        if covered.any():
            rows, columns = covered.any(1).nonzero(), covered.any(0).nonzero()
            box = view[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert {tuple(pixel) for pixel in box.flatten(1).T.tolist()} == {mean}
            shares.append(float(covered.float().mean()))
    # 0.3 with a standard error of 0.023.
    assert 0.23 < len(shares) / 400 < 0.37
    assert 0.015 < min(shares) < 0.08
    assert 0.25 < max(shares) < 0.35


def test_erasing_is_that_of_the_normalised_batch_to_half_a_level() -> None:
    image, preprocess = smooth(64, 64), Preprocess(32)
    torch.default_generator.manual_seed(3)
    view = train_crop(image, stage(crop="center", erasing=1.0), preprocess)
    own = normalise(view[None], preprocess.mean, preprocess.std)[0]
    plain = train_crop(image, stage(crop="center"), preprocess)
    torch.default_generator.manual_seed(3)
    published = v2.RandomErasing(1.0)(normalise(plain[None], preprocess.mean, preprocess.std)[0])
    assert (published == 0).any()
    assert (own - published).abs().max() <= 0.5 / 255 / min(preprocess.std) + 1e-6


@pytest.mark.parametrize(("aspect", "expected"), [((1.0, 1.0), 1.0), ((2.0, 2.0), 2.0), ((0.5, 0.5), 0.5)])
def test_the_crop_has_the_aspect_asked_for(aspect: tuple[float, float], expected: float) -> None:
    for view in views(ramp(200, 200), 20, size=64, crop_scale=(0.1, 0.3), crop_aspect=aspect):
        width, height = (float(view[0].max()) - float(view[0].min()), float(view[1].max()) - float(view[1].min()))
        assert width / height == pytest.approx(expected, rel=0.08)


def test_interpolation_of_training_is_its_own() -> None:
    image = smooth(90, 70)
    for seed in range(3):
        torch.default_generator.manual_seed(seed)
        view = train_crop(image, stage(interpolation="bicubic"), Preprocess(32))
        torch.default_generator.manual_seed(seed)
        assert torch.equal(view, train_crop(image, stage(), Preprocess(32, interpolation="bicubic")))


def test_resize_crops_any_place_of_the_picture_resized_as_in_testing() -> None:
    image = smooth(91, 70)
    resized = v2.functional.pil_to_tensor(v2.Resize(36)(image))
    places = {}
    for top in range(resized.shape[1] - 31):
        for left in range(resized.shape[2] - 31):
            places[resized[:, top : top + 32, left : left + 32].numpy().tobytes()] = (top, left)
    num = 1500
    found = [places[view.numpy().tobytes()] for view in views(image, num, crop="resize")]
    counts = np.array([found.count(place) for place in places.values()])
    assert len(counts) == 5 * 15
    # 74 degrees of freedom, 99.9 % point 117.3.
    assert chi_square(counts, np.full(75, num / 75)) < 117.3


def test_resize_centres_what_is_too_short_on_black() -> None:
    torch.default_generator.manual_seed(0)
    view = train_crop(Image.new("RGB", (30, 100), "white"), stage(crop="resize"), Preprocess(32, resize="height"))
    columns = (view[0] > 0).any(0)
    assert columns.sum() == 10
    assert columns[11:21].all()


def test_objects_keep_the_test_time_scale_without_random_resized_crop() -> None:
    train = Preprocess(224)
    for crop in ("resize", "center"):
        assert apparent_ratio(train, crop, (0.08, 1.0), train) == 1
    assert apparent_ratio(train, "resize", (0.08, 1.0), train.at(448)) == 2


@pytest.mark.parametrize(("width", "left0"), [(65, 0), (66, 1), (74, 5), (98, 17), (99, 18), (194, 65)])
def test_the_shifted_crop_follows_its_law_for_every_margin(width: int, left0: int) -> None:
    """The centre has 1 / (left0 + 1), every other offset from 0 to 2 left0 half of that."""
    torch.manual_seed(0)
    image, num = ramp(width, 64), 6000
    offsets = [transforms._shifted_crop(image, 64).getpixel((20, 0))[0] - 20 for _ in range(num)]  # type: ignore[index]
    counts = np.bincount(offsets, minlength=2 * left0 + 1)
    expected = np.full(2 * left0 + 1, num / (2 * left0 + 2))
    expected[left0] *= 2
    assert len(counts) == len(expected)
    freedom = 2 * left0
    # The 99.9 % point by Wilson and Hilferty.
    limit = freedom * (1 - 2 / (9 * max(freedom, 1)) + 3.09 * (2 / (9 * max(freedom, 1))) ** 0.5) ** 3
    assert chi_square(counts, expected) <= limit + 1e-9


def test_a_stage_takes_the_options_from_augment_and_a_fix_only_where_it_augments_itself() -> None:
    recipe = load(
        None,
        {
            "data.uri": "x", "augment.policy": "trivial", "augment.rotation": [0, 270], "augment.vertical_flip": 0.5,
            "augment.erasing": 0.1, "augment.interpolation": "bicubic", "augment.crop_aspect": [0.5, 2],
            "fix.enabled": True,
        },
    )  # fmt: skip
    train, fix = recipe.train, recipe.fix
    assert (train.augment, train.rotation, train.vertical_flip, train.erasing) == ("trivial", (0, 270), 0.5, 0.1)
    assert (train.interpolation, train.crop_aspect) == ("bicubic", (0.5, 2))
    assert (fix.augment, fix.rotation, fix.vertical_flip, fix.erasing) == ("v1", (0, 0), 0, 0)
    assert fix.interpolation == "test"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"augment.rotation": [90, 0]}, r"\[90, 0\] is no range of degrees"),
        ({"augment.crop_aspect": [2, 1]}, r"\[2, 1\] is no range of aspects"),
        ({"augment.crop_aspect": [0, 1]}, r"expected 2 numbers > 0"),
        ({"augment.randaugment_magnitude": 31}, r"expected an integer from 0 to 30"),
        ({"train.erasing": 1.5}, r"expected a number from 0 to 1"),
    ],
)
def test_options_out_of_range_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(None, overrides)


@pytest.mark.parametrize("crop", ["random", "resize", "pad", "center"])
def test_every_crop_trains_through_the_command_line(crop: str, tmp_path: Path, capsys: Any) -> None:
    argv = ["train", "--data.uri", "synthetic:classes=2,images=16,size=48", "--model.name", "test_resnet"]
    argv += ["--train.size", "32", "--train.epochs", "1", "--train.batch_size", "8", "--train.crop", crop]
    assert main([*argv, "--data.workers", "0", "--out", str(tmp_path / "r")]) == 0
    assert "train on " in capsys.readouterr().err
