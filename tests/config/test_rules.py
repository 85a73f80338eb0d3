"""Combinations of settings that cannot work, and unusual ones that can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixres.config.loading import load
from fixres.config.rules import problems
from fixres.errors import UserError
from tests.support.recipes import refusal


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
        ({"train.crop_aspect": [2, 1]}, "--train.crop_aspect: [2, 1] is no range of aspects; the first must not be"),
        ({"augment.rotation": [5, -5]}, "--augment.rotation: [5, -5] is no range of degrees"),
        (
            {"fix.solver": "cached", "fix.moves": "last-stage"},
            "--fix.solver: cached moves auto, head, head+",
        ),
        ({"fix.solver": "sgd", "fix.moves": "stats"}, "--fix.solver: sgd trains parameters, and moves 'stats' has"),
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


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("train: {norm_statistics: frozen}", "train.norm_statistics: frozen would keep mean 0 and variance 1"),
        ("train: {decay: 0.1}", "train.decay: 0.1 has no effect: nothing is solved"),
        ("fix: {size: 64, solver: cached, stop_step: 5}", "fix.solver: the cached solver has no stop_step 5"),
    ],
)
def test_a_setting_that_could_not_do_anything_is_refused(tmp_path: Path, text: str, key: str) -> None:
    lines = refusal(tmp_path / "r.yaml", text)
    assert any(key in line for line in lines), lines
