"""The recipe's types and mistakes in words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from fixres.config.messages import expected, find_field, keys_of, kind_of, show, suggest_key
from fixres.config.recipe import Recipe, Stage
from tests.support.recipes import refusal


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
    ("annotation", "words"),
    [
        (int, "an integer"),
        (Annotated[int, Field(ge=1)], "an integer >= 1"),
        (Annotated[float, Field(gt=0, le=1)], "a number > 0 and <= 1"),
        (Annotated[float, Field(ge=0, le=1)], "a number from 0 to 1"),
        (Annotated[float, Field(lt=5)], "a number < 5"),
        (bool, "true or false"),
        (Path | None, "a path"),
        (Literal["a"], "'a'"),
        (Literal["a", "b"], "one of 'a', 'b'"),
        (Annotated[int, Field(ge=1)] | Literal["auto"], "an integer >= 1 or 'auto'"),
        (tuple[float, float], "2 numbers"),
        (tuple[Annotated[int, Field(ge=1)], ...], "a list of integers >= 1"),
        (tuple[tuple[float, float], ...], "a list of [number, number]"),
        (dict[str, Any], "a mapping"),
        (bytes, "a value"),
    ],
    ids=str,
)
def test_a_type_is_said_in_words(annotation: Any, words: str) -> None:
    assert expected(kind_of(annotation)) == words


def test_values_are_quoted_as_they_are_written() -> None:
    assert [show(value) for value in (None, True, "1", 1.5, [1, "a"])] == ["nothing", "true", "'1'", "1.5", '[1, "a"]']
    long = show("x" * 100)
    assert len(long) == 60
    assert long.endswith("...")


def test_fields_are_found_by_their_keys() -> None:
    for key, field in keys_of(Recipe):
        assert find_field(key) is field
    assert find_field("stages.3.lr") is Stage.model_fields["lr"]
    assert find_field("train") is Recipe.model_fields["train"]
    for unknown in ("trian", "train.lr.x", "stages.x.lr", "model.kwargs.a", ""):
        assert find_field(unknown) is None


def test_a_suggestion_is_written_as_the_user_writes_keys() -> None:
    assert suggest_key("train.epoch", lambda key: f"--{key}") == " - did you mean '--train.epochs'?"
    assert suggest_key("momentum") == " - did you mean 'optim.momentum'?"
    assert suggest_key("qqq.zzz") == ""
