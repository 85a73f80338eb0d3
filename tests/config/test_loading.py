"""Recipes: reading, filling in, refusing, writing down."""

from __future__ import annotations

import contextlib
import json
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.cli.parse import parse_recipe
from fixres.config.defaults import OPTIMIZERS, complete
from fixres.config.loading import find_recipe, list_recipes, load, summary, to_yaml, validate
from fixres.config.messages import Kind, kind_of_field
from fixres.config.recipe import Recipe, Section, Stage
from fixres.config.rules import problems
from fixres.config.yaml_text import dump, parse
from fixres.errors import UserError


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    return tmp_path / "my.yaml"


def refusal(file: Path, text: str, overrides: dict[str, Any] | None = None, **options: bool) -> list[str]:
    """Write `text`, load it, and return the lines of the refusal with the folder cut off."""
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load(file, overrides, **options)
    return str(caught.value).replace(f"{file.parent}/", "").splitlines()


# --- filling in


def test_two_lines_are_enough_to_train(recipe_file: Path) -> None:
    recipe_file.write_text("data: {uri: folder:photos}\nmodel: {name: resnet18}\n")
    recipe = load(recipe_file, require_data=True)
    assert recipe.run_stages == (recipe.train,)
    assert (recipe.train.size, recipe.train.lr, recipe.train.crop_scale) == (224, 0.05, (0.08, 1.0))


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


def test_points_and_patterns_can_be_typed_as_flags() -> None:
    words = "--data.uri a --train.epochs 8 --schedule.name points --train.lr_points 0,0.1 2,1 8,0"
    words += " --optim.no_decay *.bias,norm --train.freeze conv1"
    recipe = parse_recipe(words.split())[0]
    assert recipe.train.lr_points == ((0, 0.1), (2, 1), (8, 0))
    assert (recipe.optim.no_decay, recipe.train.freeze) == (("*.bias", "norm"), ("conv1",))
    assert parse_recipe(["--data.uri", "a", "--optim.no_decay", "none"])[0].optim.no_decay == "none"


def test_stages_take_the_place_of_train_and_fix(recipe_file: Path) -> None:
    recipe_file.write_text("stages:\n  - {size: 96, epochs: 5}\n  - {size: 128}\n  - {size: 160, moves: head}\n")
    recipe = load(recipe_file)
    assert [stage.size for stage in recipe.run_stages] == [96, 128, 160]
    assert (recipe.train, recipe.fix) == (recipe.stages[0], recipe.stages[-1])
    assert [stage.crop for stage in recipe.stages] == ["random", "random", "center"]
    assert [stage.lr for stage in recipe.stages] == [0.05, 0.05, 0.0025]
    assert load(recipe_file, {"stages.1.lr": 0.3}).stages[1].lr == 0.3
    assert set(parse(to_yaml(recipe), "x").values).isdisjoint({"train", "fix"})


def test_a_section_with_everything_commented_out_is_empty(recipe_file: Path) -> None:
    recipe_file.write_text("seed: 3\ndata:\n  # uri: folder:photos\ntrain:\n  # size: 96\n")
    assert load(recipe_file) == load(None, {"seed": 3})


# --- numbers


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0e-3", ".001", "1E-3", "+1e-3"])
def test_the_ways_to_write_a_thousandth(recipe_file: Path, text: str) -> None:
    recipe_file.write_text(f"optim: {{lr: {text}}}\n")
    assert load(recipe_file).optim.lr == 0.001


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e5", 1e5), ("1.", 1.0), ("010", 10), ("1_000", 1000), ("1:30", "1:30"), ("2020-01-01", "2020-01-01"),
     ("-3", -3), ("0x10", 16), ("'1e-3'", "1e-3"), ("off", False), ("none", "none"), ("~", None), ("1e", "1e"),
     (".", ".")],
)  # fmt: skip
def test_plain_words(text: str, value: object) -> None:
    assert parse(f"key: {text}", "x").values["key"] == value


# --- refusing


def test_every_unknown_key_and_wrong_value_is_named_at_once_with_its_line(recipe_file: Path) -> None:
    text = """\
data: {uri: a, worker: 3}
train:
  size: '128'
  epoch: 3
  lr: true
  crop_scale: [0.1]
  moves: heads
  epochs: 3.0
ema: {enabled: 'off'}
model: {mean: [1, 2], num_classes: -1, kwargs: 3}
evaluation: {sizes: [96, 0], crop_ratio: 1.5, select_size: stages}
fix: 4
seed: true
epochs: 3
"""
    lines = refusal(recipe_file, text, {"optim.lr": "abc", "runtime.device": "gpu"})
    assert lines == [
        "19 problems",
        "  my.yaml:1: unknown key 'data.worker' - did you mean 'data.workers'?",
        "  my.yaml:3: train.size: expected an integer >= 1 or 'auto', got '128' (a text)",
        "  my.yaml:4: unknown key 'train.epoch' - did you mean 'train.epochs'?",
        "  my.yaml:5: train.lr: expected a number > 0, got true",
        "  my.yaml:6: train.crop_scale: expected 2 numbers from 0 to 1, got [0.1]",
        "  my.yaml:7: train.moves: expected one of 'auto', 'head', 'head+stats', 'head+norm', "
        "'last-stage', 'stats', 'all', got 'heads'"
        " - did you mean 'head'?",
        "  my.yaml:8: train.epochs: expected an integer >= 1, got 3.0",
        "  my.yaml:9: ema.enabled: expected true or false, got 'off' (a text)",
        "  my.yaml:10: model.num_classes: expected an integer >= 1 or 'data', got -1",
        "  my.yaml:10: model.kwargs: expected a mapping, got 3",
        "  my.yaml:10: model.mean: expected 3 numbers or 'model', got [1, 2]",
        "  my.yaml:11: evaluation.sizes: expected a list of integers >= 1, got [96, 0]",
        "  my.yaml:11: evaluation.crop_ratio: expected a number > 0 and <= 1, got 1.5",
        "  my.yaml:11: evaluation.select_size: expected an integer >= 1 or 'stage', got 'stages'"
        " - did you mean 'stage'?",
        "  my.yaml:12: fix: expected a mapping of enabled, size, epochs, ..., got 4",
        "  my.yaml:13: seed: expected an integer, got true",
        "  my.yaml:14: unknown key 'epochs' - did you mean 'train.epochs'?",
        "  --optim.lr: expected a number > 0, got 'abc'",
        "  --runtime.device: expected one of 'auto', 'cpu', 'cuda', 'npu', 'xpu', 'mps', got 'gpu'",
    ]


def test_one_mistake_is_one_line(recipe_file: Path) -> None:
    assert refusal(recipe_file, "augment: {policy: diedral}\n") == [
        "my.yaml:1: augment.policy: expected one of 'none', 'flip', 'dihedral', 'jitter', 'trivial', "
        "'randaugment', 'v1', 'v2', got 'diedral'"
        " - did you mean 'dihedral'?"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dat: {uri: a}", "unknown key 'dat' - did you mean 'data'?"),
        ("train: {momentum: 0.9}", "unknown key 'train.momentum' - did you mean 'optim.momentum'?"),
        ("train.lr: 0.1", "unknown key 'train.lr'; in a file write train: {lr: ...}"),
        ("ema: {zzz: 1}", "unknown key 'ema.zzz' (allowed here: enabled, decay, rule, ramp_steps)"),
        ("stages:\n  - {size: 3}\n  - {sise: 4}", "unknown key 'stages.1.sise' - did you mean 'stages.1.size'?"),
    ],
)
def test_unknown_keys_get_the_nearest_known_one(recipe_file: Path, text: str, message: str) -> None:
    number = text.count("\n") + 1
    assert refusal(recipe_file, text) == [f"my.yaml:{number}: {message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2", "my.yaml:2:9: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a:\n\tb: 1", "my.yaml:2:1: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: *b", "my.yaml:1:4: not valid YAML: found undefined alias 'b'"),
        ("seed: \0", "my.yaml: not valid YAML: special characters are not allowed (character 0)"),
        ("seed: 1\nseed: 2", "my.yaml:2: 'seed' is given twice, first on line 1"),
        ("train:\n  lr: 1\n  size: 3\n  lr: 2", "my.yaml:4: 'train.lr' is given twice, first on line 2"),
        ("- 1", "my.yaml: a recipe is a mapping (data: ..., model: ...), not a list"),
        ("resnet18", "my.yaml: a recipe is a mapping (data: ..., model: ...), not the value 'resnet18'"),
        ("# nothing\n", "my.yaml: the file is empty; two lines are enough:"),
        ("seed: !!python/object:os.system 1", "my.yaml:1:7: not valid YAML: could not determine a constructor"
         " for the tag 'tag:yaml.org,2002:python/object:os.system'"),
        ("data: !!set {a, b}", "my.yaml:1: the tag 'tag:yaml.org,2002:set' has no meaning in a recipe"),
        ("data: &a {uri: *a}", "my.yaml: not a recipe: nested too deeply"),
        ("[a]: 1", "my.yaml:1: a key must be a word"),
        ("seed: 1\n---\nseed: 2", "my.yaml:2:1: not valid YAML: but found another document"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused_in_one_line(recipe_file: Path, text: str, message: str) -> None:
    assert refusal(recipe_file, text)[0] == message


def test_a_file_that_expands_without_end_is_refused_at_once(recipe_file: Path) -> None:
    levels = [f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    lines = refusal(recipe_file, "\n".join(["k0: &a0 [1]", *levels]))
    assert lines == ["my.yaml: not a recipe: it expands to more than 100,000 values"]


def test_a_picture_is_not_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match=r"a\.jpg' is not a recipe: not a text file"):
        load(tmp_path / "a.jpg")


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "solar.yaml").write_text("seed: 1")
    with pytest.raises(UserError, match=r"solr\.yaml' not found - did you mean 'solar\.yaml'"):
        load(tmp_path / "solr.yaml")


def test_a_folder_of_pictures_and_a_run_folder_get_the_right_advice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder, not a recipe; to train on its pictures give --data\.uri"):
        load(tmp_path)
    (tmp_path / "recipe.yaml").write_text("seed: 1")
    with pytest.raises(UserError, match=r"did you mean '.*recipe\.yaml'"):
        load(tmp_path)


def test_an_unknown_name_gets_the_nearest_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "solar.yaml").write_text("# cells\nseed: 5\n")
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "imagenet.yaml").write_text("seed: 6\n")
    monkeypatch.setattr("fixres.config.loading.FOLDER", tmp_path)
    assert load("solar").seed == 5
    assert load("paper/imagenet").seed == 6
    assert list(list_recipes()) == ["paper/imagenet", "solar"]
    assert [summary(file) for file in list_recipes().values()] == ["", "cells"]
    with pytest.raises(UserError, match="unknown recipe 'solr' - did you mean 'solar'") as caught:
        find_recipe("solr")
    assert "a file of your own ends in .yaml" in str(caught.value)


# --- impossible combinations


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train.crop_scale": [0.5, 0.1]}, "--train.crop_scale: [0.5, 0.1] is no range of areas"),
        ({"augment.crop_scale": [0, 1]}, "--augment.crop_scale: [0, 1] is no range of areas"),
        ({"train.epochs": 3, "train.warmup_epochs": 3}, "--train.warmup_epochs: a warm-up of 3 epochs leaves nothing"),
        ({"train.batch_size": 7, "augment.mixup": 0.2}, "--train.batch_size: mixup pairs pictures and needs an even"),
        ({"train.batch_size": 7, "train.cutmix": 1}, "--train.batch_size: cutmix pairs pictures and needs an even"),
        ({"runtime.device": "cpu", "runtime.precision": "fp16"}, "--runtime.precision: fp16 does not train on a CPU"),
        ({"evaluation.resize": "pad", "evaluation.crop_ratio": 1}, "--evaluation.crop_ratio: 1 has no effect"),
        ({"train.enabled": False}, "--train.enabled: no stage is enabled, so there is nothing to run"),
        ({"schedule.min_lr": 0.1}, "--schedule.min_lr: 0.1 is above train.lr 0.05, so the cosine would rise"),
        ({"model.std": [0.2, 0.0, 0.2]}, "--model.std: pixels are divided by it"),
        ({"model.mean": [123.7, 116.3, 103.5]}, "--model.mean: pixels are in [0, 1] here"),
        (
            {"optim.base_lr": 1, "optim.lr": 1},
            "--optim.lr: lr 1 and base_lr 1 are both given and differ: linear256 makes"
            " 1 x 64 / 256 = 0.25; leave one of them out",
        ),
        (
            {"train.base_lr": 1, "train.lr": 1, "train.lr_rule": "fixres", "train.batch_size": 128},
            "--train.lr: lr 1 and",
        ),
        ({"optim.lr_rule": "fixres"}, "--optim.lr_rule: fixres multiplies base_lr, which is not given"),
        ({"train.base_lr": 1, "train.lr_rule": "none"}, "--train.lr_rule: none does not use base_lr 1"),
        ({"schedule.name": "points"}, "train.lr_points: schedule points needs [epoch, factor] pairs"),
        (
            {"schedule.name": "points", "train.lr_points": [[3, 1], [2, 0]]},
            "--train.lr_points: the epochs of the points",
        ),
        ({"schedule.name": "points", "train.lr_points": [[0, 1], [31, 0]]}, "--train.lr_points: the last point is at"),
        ({"schedule.name": "points", "train.lr_points": [[0, 0]]}, "--train.lr_points: every factor is 0"),
        (
            {"schedule.name": "points", "train.lr_points": [[0, 1]], "train.warmup_epochs": 1},
            "--train.warmup_epochs: schedule points holds its own warm-up",
        ),
        ({"schedule.cycles": 3}, "--schedule.cycles: has no effect: train.schedule is cosine, and only restarts"),
        ({"loss.gamma": 3}, "--loss.gamma: has no effect: train.loss is ce, and only focal takes it"),
        ({"loss.threshold": 0.2}, "--loss.threshold: has no effect: train.loss is ce, and only bce takes it"),
        ({"train.size_epochs": [0, 3]}, "--train.size_epochs: has no effect without train.sizes"),
        ({"train.sizes": [64, 96], "train.size_multiple": 8}, "--train.size_multiple: has no effect"),
        (
            {"train.sizes": [1, 2, 3], "train.size_schedule": "progressive"},
            "--train.sizes: progressive goes from a first",
        ),
        ({"train.sizes": [64, 96], "train.size_epochs": [1, 3]}, "--train.size_epochs: step needs one epoch for each"),
        ({"train.sizes": [64, 96, 128], "train.size_epochs": [0, 5, 5]}, "--train.size_epochs: the epochs must rise"),
        ({"train.sizes": [64, 96], "train.size_epochs": [0, 30]}, "--train.size_epochs: epoch 30 never comes"),
        ({"train.sizes": [64, 96], "train.epochs": 1}, "--train.sizes: 2 sizes do not fit into 1 epochs"),
        (
            {"train.sizes": [64, 96], "train.size_schedule": "random", "train.size_weights": [1]},
            "--train.size_weights: random needs one weight for each of 2 sizes",
        ),
        ({"train.sizes": [64, 96], "train.batch_sizes": [8]}, "--train.batch_sizes: give one for each of 2 sizes"),
        (
            {"train.sizes": [64, 96], "train.batch_sizes": [8, 7], "train.mixup": 1},
            "--train.batch_sizes: mixup and cutmix pair pictures and need even batches",
        ),
        ({"fix.sizes": [64, 96]}, "--fix.sizes: a stage with sizes needs a number of pixels as fix.size, not auto"),
        ({"fix.freeze": ["conv1"], "fix.moves": "head"}, "--fix.freeze: is for moves all"),
        ({"train.patience": 3, "evaluation.keep": "last"}, "--train.patience: stops at the best result"),
        ({"train.moves": "head"}, "--train.moves: 'head' would leave most of a random network as it is"),
        ({"stages": [], "stages.0.lr": 0.1}, "--stages.0.lr: this recipe has no 'stages'; use train.* and fix.*"),
    ],
)
def test_impossible_combinations_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(None, overrides)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "overrides",
    [
        {"train.enabled": False, "fix.epochs": 1, "model.weights": "pretrained"},
        {"fix.start_from": "ema", "train.ema": False},
        {"train.batch_size": 7},
        {"evaluation.resize": "squash"},
        {"train.moves": "head", "model.weights": "pretrained"},
        {"schedule.min_lr": 0.001, "schedule.name": "cosine", "train.epochs": 1},
        {"schedule.name": "restarts", "schedule.cycles": 2, "fix.schedule": "cosine"},
        {"train.sizes": [64, 96], "train.size_schedule": "random", "train.size_weights": [0, 1]},
        {"loss.name": "bce", "train.mixup": 0.2, "loss.threshold": 0.2},
    ],
)
def test_unusual_but_possible_combinations_are_not_refused(overrides: dict[str, Any]) -> None:
    assert problems(load(None, overrides)) == []


def test_all_impossible_combinations_come_at_once(recipe_file: Path) -> None:
    text = "train: {batch_size: 7, mixup: 1}\naugment:\n  crop_scale: [1, 0.1]\n"
    lines = refusal(recipe_file, text, {"runtime.device": "cpu", "runtime.precision": "fp16"}, require_data=True)
    assert [line.split(": ")[0] for line in lines] == [
        "4 problems",
        "  data.uri",
        "  my.yaml:1",
        "  my.yaml:3",
        "  --runtime.precision",
    ]


def test_data_is_needed_only_to_run() -> None:
    assert load(None).data.uri == ""
    with pytest.raises(UserError, match=r"data\.uri: no data; give a folder of pictures"):
        load(None, require_data=True)


def test_the_batch_of_training_may_change_where_the_fix_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text("data: {uri: x}\ntrain: {batch_size: 512}\nfix: {size: 64, batch_size: 256}\n")
    recipe = load(path, {"train.batch_size": 128})
    assert (recipe.train.batch_size, recipe.fix.batch_size) == (128, 256)


def test_a_default_overridden_in_vain_is_refused(recipe_file: Path) -> None:
    recipe_file.write_text(to_yaml(load(None, {"fix.epochs": 1})))
    with pytest.raises(
        UserError, match=r"--optim\.lr: has no effect: train\.lr and fix\.lr are set in .*; use --train"
    ):
        load(recipe_file, {"optim.lr": 0.3})
    assert load(recipe_file, {"optim.momentum": 0.5}).optim.momentum == 0.5
    with pytest.raises(UserError, match=r"--optim\.base_lr: has no effect: train\.lr and fix\.lr are set in"):
        load(recipe_file, {"optim.base_lr": 0.3})
    recipe_file.write_text("train: {base_lr: 0.1}\n")
    with pytest.raises(UserError, match=r"--optim\.lr: has no effect: train\.base_lr is set in"):
        load(recipe_file, {"optim.lr": 0.3})
    recipe_file.write_text("train: {lr: 0.3}\nfix: {epochs: 1}\n")
    assert load(recipe_file, {"optim.lr": 0.2}).fix.lr == 0.01
    recipe_file.write_text("train: {crop: pad}\n")
    with pytest.raises(UserError, match=r"--augment\.crop: has no effect: train\.crop is set in .*; use --train\.crop"):
        load(recipe_file, {"augment.crop": "random"})


def test_train_and_fix_beside_stages_are_refused(recipe_file: Path) -> None:
    stages = "stages:\n  - {size: 96}\n  - {size: 128}\n"
    assert refusal(recipe_file, stages + "fix: {size: 3}") == [
        "my.yaml:4: fix: this recipe has 'stages', which take the place of train and fix - did you mean 'stages.1'?"
    ]
    assert refusal(recipe_file, stages, {"train.lr": 0.1}) == [
        "--train.lr: this recipe has 'stages', which take the place of train and fix - did you mean 'stages.0.lr'?"
    ]
    assert refusal(recipe_file, stages, {"stages.2.lr": 0.1}) == ["--stages.2.lr: this recipe has stages 0 to 1"]


def test_labels_say_where_an_override_comes_from() -> None:
    with pytest.raises(UserError, match=r"^--size: expected an integer >= 1 or 'auto', got 0$"):
        load(None, {"fix.size": 0}, labels={"fix.size": "--size"})


# --- writing down


def values_of(kind: Kind) -> st.SearchStrategy[Any]:
    """Draw any value that a key of this kind may have in JSON."""
    return st.one_of([_values_of(member) for member in kind.alternatives])


def _values_of(kind: Kind) -> st.SearchStrategy[Any]:
    if kind.choices:
        return st.sampled_from(kind.choices)
    if kind.elements is not None:
        element, number = kind.elements
        return st.lists(values_of(element), min_size=number or 0, max_size=number or 4)
    if typing.get_origin(kind.type) is dict:
        plain = st.one_of(st.text(max_size=9), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
        plain = plain | st.booleans() | st.none()
        return st.dictionaries(st.text(max_size=9), st.one_of(plain, st.lists(plain, max_size=2)), max_size=3)
    low, high = kind.bounds.get("ge", kind.bounds.get("gt")), kind.bounds.get("le", kind.bounds.get("lt"))
    if kind.type is int:
        return st.integers(None if low is None else int(low), 10**9 if high is None else int(high))
    if kind.type is float:
        return st.floats(low, high, exclude_min="gt" in kind.bounds, exclude_max="lt" in kind.bounds,
                         allow_nan=False, allow_infinity=False)  # fmt: skip
    return st.booleans() if kind.type is bool else st.text(max_size=20)


def sections(section: type[Section]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {name: values_of(kind_of_field(field)) for name, field in section.model_fields.items()}
    )


FIELDS = {name: field.annotation for name, field in Recipe.model_fields.items() if name not in ("seed", "stages")}
WHOLE = st.fixed_dictionaries({"seed": st.integers(-(10**9), 10**9), **{n: sections(s) for n, s in FIELDS.items()}})


@settings(max_examples=60, deadline=None)
@given(WHOLE, st.lists(sections(Stage), max_size=3))
def test_what_is_written_down_is_read_back_equal(values: dict[str, Any], stages: list[dict[str, Any]]) -> None:
    if stages:
        values = {**values, "stages": stages, "train": stages[0], "fix": stages[-1]}
    recipe = Recipe.model_validate_json(json.dumps(values), strict=True)
    text = to_yaml(recipe, header="what\nand why")
    assert validate(parse(text, "x").values) == recipe


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.recursive(SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3)))
def test_any_plain_value_survives_the_yaml(value: object) -> None:
    assert parse(dump({"key": value}), "x").values == {"key": value}


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UserError):
        assert isinstance(parse(text, "x").values, dict)


NAMES = st.sampled_from([*Recipe.model_fields, *Stage.model_fields, "uri", "workers", "name", "kwargs", "mean", "zzz"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.sampled_from(["auto", "ema", "adamw", "1e-3"]),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(NAMES, part, max_size=4),
)
KEYS = st.sampled_from(
    ["optim.lr", "train.size", "fix", "fix.epochs", "stages.0.lr", "stages", "data.uri", "model.kwargs.a"]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, ANYTHING, min_size=1, max_size=4), st.dictionaries(KEYS, ANYTHING, max_size=2))
def test_any_file_with_any_flags_is_a_recipe_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any], overrides: dict[str, Any]
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(dump(values))
    with contextlib.suppress(UserError):
        recipe = load(file, overrides)
        assert validate(parse(to_yaml(recipe), "x").values) == recipe


def test_completing_twice_changes_nothing() -> None:
    once = complete({"train": {"size": 96, "epochs": 1}, "fix": {"epochs": 3}, "optim": {"name": "adamw"}})
    assert complete(once) == once


def test_a_saved_recipe_repeats_itself(recipe_file: Path) -> None:
    recipe = load(None, {"data.uri": "folder:a", "train.size": 96, "fix.epochs": 3, "model.kwargs.drop_rate": 0.1})
    recipe_file.write_text(to_yaml(recipe, header="repeat: fixres train recipe.yaml"))
    assert load(recipe_file) == recipe
    assert summary(recipe_file) == "repeat: fixres train recipe.yaml"


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_is_complete_and_described(name: str) -> None:
    assert load(name).run_stages
    assert len(summary(list_recipes()[name])) > 20
