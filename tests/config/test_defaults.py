"""What a recipe leaves out: where every default comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixres.config.defaults import OPTIMIZERS, complete, learning_rate_of, named_stages, source_key
from fixres.config.loading import load, to_yaml
from fixres.config.recipe import Stage
from fixres.config.yaml_text import parse
from fixres.errors import UserError


def test_a_stage_takes_what_it_does_not_say_from_the_sections() -> None:
    recipe = load(
        None,
        {
            "optim": {"lr": 0.2, "weight_decay": 0.001},
            "schedule": {"name": "constant", "warmup_epochs": 3},
            "ema.enabled": True,
            "augment": {"policy": "v2", "crop": "pad", "crop_scale": [0.5, 1], "label_smoothing": 0.1, "mixup": 0.2},
            "train.crop": "center",
            "train.batch_size": 32,
            "fix.epochs": 4,
        },
    )
    train, fix = recipe.train, recipe.fix
    assert (train.lr, train.weight_decay, train.schedule, train.warmup_epochs) == (0.2, 0.001, "constant", 3)
    assert (train.augment, train.crop, train.crop_scale, train.mixup) == ("v2", "center", (0.5, 1), 0.2)
    assert (train.label_smoothing, train.ema, train.moves) == (0.1, True, "all")
    assert (fix.lr, fix.weight_decay, fix.schedule, fix.warmup_epochs) == (0.01, 0.001, "constant", 0)
    assert (fix.augment, fix.crop, fix.mixup, fix.ema, fix.moves) == ("v1", "center", 0, False, "auto")
    assert (fix.label_smoothing, fix.epochs, fix.batch_size) == (0.1, 4, 32)


@pytest.mark.parametrize("name", [name for name in Stage.model_fields if name != "enabled"])
def test_naming_any_fix_key_enables_the_fix(name: str) -> None:
    default = load(None).fix
    assert not default.enabled
    value = default.model_dump(mode="json")[name]
    assert load(None, {f"fix.{name}": value}).fix.enabled


def test_the_flag_of_a_fix_key_enables_a_fix_that_the_file_disables(recipe_file: Path) -> None:
    recipe_file.write_text("fix: {enabled: false, size: 160}\n")
    assert not load(recipe_file).fix.enabled
    assert load(recipe_file, {"fix.size": 192}).fix.enabled
    assert not load(recipe_file, {"fix.size": 192, "fix.enabled": False}).fix.enabled


def test_the_fix_chooses_its_size_unless_told() -> None:
    assert load(None, {"fix.epochs": 1}).fix.size == "auto"
    with pytest.raises(UserError, match=r"--train\.size: auto is for a fix stage"):
        load(None, {"train.size": "auto"})


def test_the_default_warm_up_leaves_room_in_a_short_stage() -> None:
    assert load(None, {"train.epochs": 1}).train.warmup_epochs == 0.5
    assert load(None, {"train.epochs": 2}).train.warmup_epochs == 1.0
    with pytest.raises(UserError, match=r"schedule\.warmup_epochs: a warm-up of 5 epochs leaves nothing"):
        load(None, {"train.epochs": 3, "schedule.warmup_epochs": 5})


def test_adamw_does_not_get_the_learning_rate_of_sgd() -> None:
    recipe = load(None, {"optim.name": "adamw", "fix.epochs": 1})
    assert (recipe.optim.lr, recipe.train.lr, recipe.fix.lr) == (0.001, 0.001, 0.001)
    recipe = load(None, {"optim.lr": 0.2, "fix.epochs": 1})
    assert (recipe.train.lr, recipe.fix.lr) == (0.2, 0.01)
    assert load(None, {"optim.name": "adamw", "optim.lr": 0.01}).train.lr == 0.01


@pytest.mark.parametrize("name", ["lamb", "lion", "muon"])
def test_an_optimizer_brings_its_own_defaults(name: str) -> None:
    recipe = load(None, {"optim.name": name, "fix.epochs": 1})
    assert {key: getattr(recipe.optim, key) for key in OPTIMIZERS[name]} == OPTIMIZERS[name]
    assert recipe.train.lr == recipe.fix.lr == OPTIMIZERS[name]["lr"]
    assert load(None, {"optim.name": name, "optim.eps": 0.5, "optim.lr": 3}).optim.eps == 0.5
    assert load(None, {"optim.name": "nesterov", "fix.epochs": 1}).fix.lr == 0.0025


@pytest.mark.parametrize(
    ("overrides", "lr"),
    [
        ({"optim.base_lr": 0.1}, 0.2),
        ({"optim.base_lr": 0.1, "optim.name": "adamw"}, 0.2),
        ({"optim.base_lr": 0.02, "optim.lr_rule": "fixres"}, 0.16),
        ({"train.base_lr": 0.1, "optim.lr": 7}, 0.2),
        ({"train.base_lr": 0.1, "optim.lr_rule": "fixres"}, 0.8),
        ({"train.lr": 0.3, "optim.base_lr": 0.1}, 0.3),
        ({"train.lr": 0.2, "train.base_lr": 0.1, "train.lr_rule": "linear256"}, 0.2),
    ],
)
def test_the_learning_rate_follows_the_batch_and_says_so(overrides: dict[str, Any], lr: float, tmp_path: Path) -> None:
    recipe = load(None, {"train.batch_size": 512, **overrides})
    assert recipe.train.lr == lr
    is_by_rule = recipe.train.lr_rule != "none"
    assert is_by_rule == (recipe.train.base_lr > 0) == ("train.lr" not in overrides or "train.base_lr" in overrides)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert load(tmp_path / "recipe.yaml") == recipe


def test_a_fix_scales_by_its_own_batch() -> None:
    recipe = load(None, {"optim.base_lr": 0.1, "train.batch_size": 512, "fix.batch_size": 128})
    assert (recipe.fix.base_lr, recipe.fix.lr) == (0.005, 0.0025)
    assert (recipe.optim.lr, recipe.optim.lr_rule) == (0.2, "linear256")
    recipe = load(None, {"optim.base_lr": 0.1, "optim.name": "adamw", "fix.batch_size": 128})
    assert (recipe.fix.base_lr, recipe.fix.lr) == (0.1, 0.05)


def test_a_curve_of_points_needs_no_warm_up() -> None:
    recipe = load(None, {"schedule.name": "points", "schedule.points": [[0, 0.1], [5, 1], [30, 0]]})
    assert recipe.train.warmup_epochs == 0
    assert recipe.train.lr_points == ((0, 0.1), (5, 1), (30, 0))


def test_stages_take_the_place_of_train_and_fix(recipe_file: Path) -> None:
    recipe_file.write_text("stages:\n  - {size: 96, epochs: 5}\n  - {size: 128}\n  - {size: 160, moves: head}\n")
    recipe = load(recipe_file)
    assert [stage.size for stage in recipe.run_stages] == [96, 128, 160]
    assert (recipe.train, recipe.fix) == (recipe.stages[0], recipe.stages[-1])
    assert [stage.crop for stage in recipe.stages] == ["random", "random", "center"]
    assert [stage.lr for stage in recipe.stages] == [0.05, 0.05, 0.0025]
    assert load(recipe_file, {"stages.1.lr": 0.3}).stages[1].lr == 0.3
    assert set(parse(to_yaml(recipe), "x").values).isdisjoint({"train", "fix"})


def test_the_batch_of_training_may_change_where_the_fix_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text("data: {uri: x}\ntrain: {batch_size: 512}\nfix: {size: 64, batch_size: 256}\n")
    recipe = load(path, {"train.batch_size": 128})
    assert (recipe.train.batch_size, recipe.fix.batch_size) == (128, 256)


def test_completing_twice_changes_nothing() -> None:
    once = complete({"train": {"size": 96, "epochs": 1}, "fix": {"epochs": 3}, "optim": {"name": "adamw"}})
    assert complete(once) == once


@pytest.mark.parametrize(
    ("base_lr", "rule", "batch_size", "lr"),
    [(0.1, "linear256", 512, 0.2), (0.1, "linear256", 3, 0.001171875), (0.02, "fixres", 512, 0.16)],
)
def test_a_scaled_rate_is_written_without_the_dust_of_binary_fractions(
    base_lr: float, rule: str, batch_size: int, lr: float
) -> None:
    assert learning_rate_of(base_lr, rule, batch_size) == lr


@pytest.mark.parametrize(
    ("key", "stage", "source"),
    [
        ("train.lr", None, "optim.lr"),
        ("train.augment", None, "augment.policy"),
        ("fix.batch_size", None, "train.batch_size"),
        ("train.epochs", None, "train.epochs"),
        ("fix.augment", None, "fix.augment"),
        ("optim.lr", None, "optim.lr"),
        ("stages.0.crop", {"moves": "head"}, "augment.crop"),
        ("stages.1.crop", {"moves": "all"}, "augment.crop"),
        ("stages.1.crop", {"moves": "head"}, "stages.1.crop"),
    ],
)
def test_the_section_that_fills_a_stage_key_is_known(key: str, stage: dict[str, str] | None, source: str) -> None:
    assert source_key(key, stage) == source


def test_stages_have_the_names_their_keys_begin_with() -> None:
    assert [name for name, _ in named_stages(load(None))] == ["train", "fix"]
    listed = load(None, {"stages": [{"size": 96}, {"size": 128, "moves": "head"}]})
    assert [(name, stage.size) for name, stage in named_stages(listed)] == [("stages.0", 96), ("stages.1", 128)]


@pytest.mark.parametrize("raw", [{"train": 3}, {"stages": ["a", 2]}, {"optim": "sgd"}, {"train": None}, {"fix": [1]}])
def test_what_is_of_a_wrong_type_is_left_for_the_validation(raw: dict[str, Any]) -> None:
    filled = complete(raw)
    for key, value in raw.items():
        assert value is None or filled[key] == value
