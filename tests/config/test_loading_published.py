"""Every shipped row of the published tables: valid, in step with its variants, and equal to what was published."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fixres.config.lab_record import LABELS, read_record
from fixres.config.loading import flatten, load, to_yaml
from fixres.config.recipe import Stage
from fixres.config.rules import problems
from fixres.data.progressive_sizes import Timeline, make_timeline
from fixres.data.sampling import epoch_indices, num_epoch_samples
from fixres.data.transforms import train_crop
from fixres.experiments.cost import count_pictures
from fixres.models.build import build_model
from fixres.models.moves import make_plan
from fixres.models.names import bare
from fixres.models.sizes import at_size
from fixres.resolution import Preprocess
from fixres.training.lr_schedule import Curve, ema_decay
from fixres.training.stage_plan import average_warning
from tests.support.recipes import PUBLISHED_RECIPES, recipe_of

IMAGENET = 1_281_167


def stages(name: str) -> tuple[Stage, ...]:
    return recipe_of(name).run_stages


@pytest.mark.parametrize("name", PUBLISHED_RECIPES)
def test_a_recipe_is_valid_round_trips_and_has_its_lab_record(name: str, tmp_path: Path) -> None:
    recipe = recipe_of(name)
    assert not problems(recipe, require_data=True)
    (tmp_path / "copy.yaml").write_text(to_yaml(recipe))
    assert load(tmp_path / "copy.yaml") == recipe
    record = read_record(PUBLISHED_RECIPES[name])
    for label in LABELS:
        assert getattr(record, label.lower()), f"{name} has no {label} line"
    assert re.search(rf"fixres train {name}(?: |$)", record.run)
    assert max(map(len, PUBLISHED_RECIPES[name].read_text().splitlines())) <= 120


def networks() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return every distinct network with the sizes its recipes use: {architecture: (recipe, sizes)}."""
    found: dict[str, tuple[str, set[int]]] = {}
    for name in PUBLISHED_RECIPES:
        recipe = recipe_of(name)
        sizes = {int(size) for stage in recipe.run_stages for size in (stage.size, *stage.sizes)}
        key = bare(recipe.model.name)
        found.setdefault(key, (name, set()))[1].update(sizes)
    return {key: (name, tuple(sorted(sizes))) for key, (name, sizes) in found.items()}


@pytest.mark.parametrize(("name", "sizes"), networks().values(), ids=networks())
def test_every_network_can_be_built_and_takes_its_sizes(name: str, sizes: tuple[int, ...]) -> None:
    recipe = recipe_of(name)
    with torch.device("meta"):
        model = build_model(recipe.model.name, 10, recipe.model.kwargs)
    for size in sizes:
        assert at_size(model, size) is model
    moves = {
        stage.moves for same in PUBLISHED_RECIPES for stage in stages(same) if recipe_of(same).model == recipe.model
    }
    for move in moves:
        assert make_plan(model, move, sizes[-1]).trained


@pytest.mark.parametrize("name", PUBLISHED_RECIPES)
def test_every_stage_crops_a_picture(name: str) -> None:
    recipe = recipe_of(name)
    evaluation = recipe.evaluation
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8))
    for stage in recipe.run_stages:
        size = int(stage.size)
        preprocess = Preprocess(size, crop_ratio=evaluation.crop_ratio, resize=evaluation.resize)
        assert train_crop(picture, stage, preprocess).shape == (3, size, size)


def timeline(name: str, index: int) -> Timeline:
    stage = stages(name)[index]
    num = num_epoch_samples(count_pictures(recipe_of(name)).num_train, stage.epoch_samples)
    return make_timeline(stage, int(stage.size), num, seed=0, stage_index=index)


FIX = 2502
"""Steps in an epoch of a fix with 512 pictures."""


SCRATCH = [(0, 0.16), (30 * 5005 - 1, 0.16), (30 * 5005, 0.016), (60 * 5005, 1.6e-3), (90 * 5005, 1.6e-4)]


SIMPLE_CIFAR = [(0, 0.0), (781, 0.05 / 25), (5 * 781, 0.05), (200 * 781 - 1, 1e-4)]


RESTARTS = [(0, 0.1), (149 * 10009, 6.1e-5), (150 * 10009, 0.1), (450 * 10009, 0.1)]


ASCEND_8 = [(0, 1e-3), (29 * FIX, 1e-3), (30 * FIX, 1e-4)]


PUBLISHED: dict[tuple[str, int], tuple[int, list[tuple[int, float]], tuple[int, int]]] = {
    # (recipe, stage): steps, [(step, learning rate)], (size, resized to before the crop)
    ("fixres/resnet50-128", 0): (600_600, SCRATCH, (128, 146)),
    ("fixres/resnet50-160", 0): (600_600, SCRATCH, (160, 182)),
    ("fixres/resnet50-224", 0): (600_600, SCRATCH, (224, 256)),
    ("fixres/resnet50-384", 0): (600_600, SCRATCH, (384, 438)),
    ("fixres/resnet50-224-fix384-v1", 0): (600_600, SCRATCH, (224, 256)),
    ("fixres/resnet50-224-fix384-v1", 1): (56 * FIX, [(0, 8e-3), (30 * FIX - 1, 8e-3), (30 * FIX, 8e-4)], (384, 438)),
    ("fixres/resnet50-224-fix384-v2", 1): (31 * FIX, [(0, 8e-3), (30 * FIX, 8e-4)], (384, 438)),
    ("fixres/resnet50-cutmix-224", 0): (
        300 * 5004,
        [(0, 0.1), (75 * 5004 - 1, 0.1), (75 * 5004, 0.01), (225 * 5004, 1e-4)],
        (224, 256),
    ),
    ("fixres/resnet50-cutmix-224-fix320-v2", 1): (11 * FIX, [(0, 8e-3), (11 * FIX - 1, 8e-3)], (320, 365)),
    ("fixres/resnext101-32x48d-fix320-v1", 0): (5004, [(0, 4e-3), (5003, 4e-3)], (320, 365)),
    ("fixres/resnext101-32x48d-fix320-v2", 0): (11 * 5004, [(0, 4e-4), (11 * 5004 - 1, 4e-4)], (320, 365)),
    ("fixres/pnasnet5-fix480", 0): (FIX, [(0, 8e-4), (FIX - 1, 8e-4)], (480, 548)),
    ("fixres/efficientnet-b4-noisystudent-fix472", 0): (11 * FIX, [(0, 8e-4)], (472, 472)),
    ("resnext/resnext50-32x4d", 0): (600 * 10009, RESTARTS, (224, 256)),
    ("resnext/resnext101-64x4d", 0): (600 * 10009, RESTARTS, (224, 256)),
    ("simple/cifar10-resnet18", 0): (156_200, SIMPLE_CIFAR, (32, 32)),
    ("simple/cifar100-resnet18-raw", 0): (156_200, SIMPLE_CIFAR, (32, 32)),
    ("simple/cub-resnet18", 0): (46_500, [(0, 0.0), (93, 0.002), (465, 0.05), (46_499, 1e-4)], (224, 255)),
    ("simple/cars-resnet50-moco", 0): (63_500, [(0, 0.0), (635, 0.005), (63_499, 1e-4)], (224, 255)),
    ("simple/cub-resnet50-imagenet-224-448", 0): (37_200, [(465, 0.005), (37_199, 1e-4)], (224, 255)),
    ("simple/cub-resnet50-imagenet-224-448", 1): (9_300, [(0, 0.0), (465, 0.001), (9_299, 1e-4)], (448, 510)),
    ("ascend/train-full-8p", 0): (600_600, SCRATCH, (224, 256)),
    ("ascend/train-full-1p", 0): (120 * 40_040, [(0, 0.02), (30 * 40_040, 0.002)], (224, 256)),
    ("ascend/train-performance-1p", 0): (40_040, [(0, 0.025)], (224, 256)),
    ("ascend/finetune-full-8p", 0): (60 * FIX, ASCEND_8, (384, 438)),
    ("ascend/finetune-full-1p", 0): (60 * 20_018, [(0, 1e-3), (30 * 20_018, 1e-4)], (384, 438)),
    ("modern/resnet50-torchvision-176-fix224", 0): (600 * 1251, [(5 * 1251, 0.5)], (176, 182)),
    ("modern/resnet50-torchvision-176-fix224", 1): (11 * 1251, [(0, 8e-3)], (224, 232)),
    ("modern/resnet50-timm-a3-160-fix224", 0): (100 * 625, [(5 * 625, 0.008)], (160, 168)),
    ("modern/resnet50-ffcv-88", 0): (88 * 312, [(0, 1.7e-4), (312, 0.850085), (624, 1.7)], (192, 219)),
    ("modern/resnet18-ffcv-16", 0): (16 * 1251, [(0, 5e-5), (2 * 1251, 0.5), (9 * 1251, 0.25)], (192, 219)),
}


@pytest.mark.parametrize(("row", "index"), PUBLISHED, ids=str)
def test_steps_rates_and_sizes_are_those_published(row: str, index: int) -> None:
    num_steps, rates, (size, resize_size) = PUBLISHED[row, index]
    found = timeline(row, index)
    assert found.total_steps == num_steps
    curve = Curve(stages(row)[index], found)
    for step, lr in rates:
        assert curve.at(step) == pytest.approx(lr, rel=2e-3, abs=2e-9), step
    evaluation = recipe_of(row).evaluation
    assert stages(row)[index].size == size
    assert Preprocess(size, crop_ratio=evaluation.crop_ratio).resize_size == resize_size


def test_the_average_of_simple_classification_has_its_decays() -> None:
    ema = recipe_of("simple/cub-resnet50").ema
    decays = [ema_decay(n, decay=ema.decay, rule=ema.rule, ramp_steps=ema.ramp_steps) for n in (1, 1000, 20_000)]
    assert decays == pytest.approx([0.0005, 0.3934, 0.99976], abs=5e-5)


AVERAGED = [(name, i) for name in PUBLISHED_RECIPES for i, stage in enumerate(recipe_of(name).run_stages) if stage.ema]


@pytest.mark.parametrize(("name", "index"), AVERAGED, ids=str)
def test_no_shipped_average_keeps_its_start(name: str, index: int) -> None:
    recipe = recipe_of(name)
    assert not average_warning(recipe.ema, stages(name)[index], timeline(name, index).total_steps, "train")


@pytest.mark.parametrize(("data", "kept"), [("caltech101", "62 %"), ("caltech256", "19 %"), ("mini-imagenet", "2.7 %")])
def test_the_project_s_own_decay_warns_where_it_was_corrected(data: str, kept: str) -> None:
    name = f"resnext/{data}-resnext50-32x4d"
    own = recipe_of(name).ema.model_copy(update={"decay": 0.99998})
    found = timeline(name, 0)
    assert kept in average_warning(own, stages(name)[0], found.total_steps, "train")
    # Corrected, it forgets within five epochs, as the project's does on ImageNet.
    assert 1 / (1 - recipe_of(name).ema.decay) / found.steps_in(0) == pytest.approx(50_000 / 10_009, abs=0.3)


@pytest.mark.parametrize(
    ("row", "index", "share"),
    [
        ("fixres/resnet50-224", 0, 2 / 3),
        ("ascend/train-full-1p", 0, 2 / 3),
        ("fixres/resnet50-224-fix384-v1", 1, 1.0),
        ("modern/resnet50-torchvision-176-fix224", 0, 1 / 4),
        ("resnext/resnext50-32x4d", 0, 1.0),
    ],
)
def test_an_epoch_shows_as_many_distinct_pictures_as_published(row: str, index: int, share: float) -> None:
    stage = stages(row)[index]
    num = num_epoch_samples(IMAGENET, stage.epoch_samples)
    labels = np.zeros(IMAGENET, dtype=np.int64)
    shown = epoch_indices(labels, num, stage.sampler, stage.repeats, seed=0, stage=index, epoch=0)
    assert len(np.unique(shown)) / IMAGENET == pytest.approx(share, abs=1e-3)


def test_ffcv_grows_its_pictures_when_published() -> None:
    for epochs, start, end in ((16, 11, 13), (24, 17, 20), (32, 23, 27), (40, 29, 34), (56, 41, 48), (88, 65, 76)):
        for depth in (18, 50):
            sizes = [timeline(f"modern/resnet{depth}-ffcv-{epochs}", 0).choices[e][0].size for e in range(epochs)]
            assert set(sizes[: start + 1]) == {160}
            assert set(sizes[end:]) == {192}


def different(first: str, second: str) -> set[str]:
    """Return the keys in which two recipes differ, stages by number."""

    def flat(name: str) -> dict[str, Any]:
        recipe = recipe_of(name)
        found = flatten(recipe.model_dump(mode="json", exclude={"train", "fix", "stages"}))
        for index, stage in enumerate(recipe.run_stages):
            found |= {f"{index}.{key}": value for key, value in stage.model_dump(mode="json").items()}
        return found

    one, other = flat(first), flat(second)
    return {key for key in {*one, *other} if one.get(key) != other.get(key)}


def pairs() -> Iterable[tuple[str, str, set[str]]]:
    yield "fixres/resnet50-224-fix384-v1", "fixres/resnet50-224-fix384-v2", {"1.epochs", "1.augment"}
    yield "fixres/resnet50-cutmix-224-fix320-v1", "fixres/resnet50-cutmix-224-fix320-v2", {"1.augment"}
    rates = {"0.lr", "0.base_lr", "optim.lr", "optim.base_lr", "evaluation.every_epochs"}
    yield "fixres/resnext101-32x48d-fix320-v1", "fixres/resnext101-32x48d-fix320-v2", {
        "0.epochs", "0.augment", *rates,
    }  # fmt: skip
    for size in (64, 128, 160, 384):
        yield "fixres/resnet50-224", f"fixres/resnet50-{size}", {"0.size"}
    for size in (128, 160):
        yield "fixres/resnet50-224-fix384-v1", f"fixres/resnet50-{size}-fix224-v1", {
            "0.size", "1.size", "evaluation.sizes",
        }  # fmt: skip
    for key in ("cifar10-resnet18", "cub-resnet18", "cub-resnet50", "cars-resnet50"):
        yield f"simple/{key}", f"simple/{key}-raw", {"ema.enabled", "0.ema"}
    for key in ("resnet18", "resnet50-moco", "resnet50-imagenet-224-448"):
        yield f"simple/cub-{key}", f"simple/cars-{key}", {"data.uri"}
    yield "simple/cub-resnet50-imagenet-224", "simple/cub-resnet50-imagenet-448", {"0.size"}
    yield "simple/cub-resnet50-imagenet", "simple/cub-resnet50-imagenet-224", {"evaluation.sizes"}
    for width in range(8):
        names = [name for name in PUBLISHED_RECIPES if f"efficientnet-b{width}-" in name]
        yield names[0], names[1], {"model.name", "model.mean", "model.std", "0.size"}
    batch = {"0.batch_size", "optim.lr", "0.lr"}
    yield "ascend/train-full-1p", "ascend/train-full-8p", batch
    yield "ascend/finetune-full-1p", "ascend/finetune-full-8p", {"0.batch_size"}
    yield "ascend/train-full-8p", "ascend/train-performance-8p", {"0.epochs"}
    yield "ascend/train-full-1p", "ascend/train-performance-1p", {
        "0.epochs", "0.lr", "optim.lr", "0.base_lr", "optim.base_lr",
    }  # fmt: skip
    yield "ascend/finetune-full-1p", "ascend/finetune-performance-1p", {"0.epochs"}
    for arch in ("resnext101-32x8d", "resnext101-64x4d"):
        yield "resnext/resnext50-32x4d", f"resnext/{arch}", {"model.name"}
    for depth in (18, 50):
        for epochs in (24, 88):
            yield f"modern/resnet{depth}-ffcv-16", f"modern/resnet{depth}-ffcv-{epochs}", {
                "0.epochs", "0.lr_points", "0.size_epochs", "schedule.points", "evaluation.every_epochs",
            }  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "keys"),
    list(pairs()),
    ids=lambda value: value if isinstance(value, str) else ",".join(sorted(value)),
)
def test_variants_differ_in_what_makes_them_variants(first: str, second: str, keys: set[str]) -> None:
    assert different(first, second) - {"data.license"} <= keys
    assert different(first, second)


def test_the_whole_resnet_is_trained_alike_by_fixres_and_the_port() -> None:
    keys = different("fixres/resnet50-224", "ascend/train-full-8p")
    assert keys == {"runtime.device", "runtime.precision", "evaluation.sizes", "evaluation.every_epochs"}
