"""Command lines: what is typed, what comes of it, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from fixres.cli.parse import Asked, Positional, TrainOptions, parse_flags, parse_recipe, read_value
from fixres.config.loading import load, to_yaml
from fixres.config.messages import Kind, keys_of, kind_of_field
from fixres.config.recipe import Recipe
from fixres.config.yaml_text import parse_value
from fixres.errors import UserError


def asked(*words: str) -> Asked[TrainOptions]:
    return parse_recipe(words, TrainOptions)


def overrides_of(*words: str) -> dict[str, Any]:
    return asked("--data.uri", "photos", *words).overrides


def refusal(*words: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        asked(*words)
    return str(caught.value).splitlines()


# --- train


def test_a_recipe_flags_and_overrides_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("data: {uri: photos}\ntrain: {size: 96, lr: 1e-3}\n")
    found = asked(str(file), "--train.size", "128", "--out", "runs/a", "--resume", "--dry-run")
    assert (found.recipe.train.size, found.recipe.train.lr, found.recipe.data.uri) == (128, 0.001, "photos")
    assert found.options == TrainOptions(out=Path("runs/a"), resume=True, dry_run=True)
    assert (found.name, found.overrides) == (str(file), {"train.size": 128})


def test_without_a_recipe_the_defaults_are_used() -> None:
    found = asked("--data.uri", "photos")
    assert found.recipe == load(None, {"data.uri": "photos"})
    assert (found.options, found.name) == (TrainOptions(), "")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("--train.crop-scale 0.2 1", [0.2, 1.0]),
        ("--train.crop_scale=0.2,1", [0.2, 1.0]),
        ("--train.crop_scale [.2,1]", [0.2, 1.0]),
        ("--evaluation.sizes 96 128,160", [96, 128, 160]),
        ("--evaluation.sizes 96", [96]),
        ("--evaluation.sizes=", []),
        ("--ema.enabled yes", True),
        ("--runtime.compile=ON", True),
        ("--runtime.channels-last off", False),
        ("--train.ema FALSE", False),
        ("--seed -1", -1),
        ("--optim.lr 1e-3", 0.001),
        ("--optim.lr 1", 1.0),
        ("--data.workers 2", 2),
        ("--data.workers auto", "auto"),
        ("--model.mean .1 .2 .3", [0.1, 0.2, 0.3]),
        ("--model.mean model", "model"),
        ("--data.license 12", "12"),
        ("--data.license yes", "yes"),
        ("--data.license=--none--", "--none--"),
        ("--model.kwargs.drop-path-rate 0.1", 0.1),
        ("--model.kwargs.block_args {a:1}", {"a:1": None}),
        ("--model.kwargs.layers [1,1,1,1]", [1, 1, 1, 1]),
        ("--model.kwargs.act_layer relu", "relu"),
        ("--train.size 96 --train.size 128", 128),
    ],
)
def test_the_ways_to_write_a_value(words: str, value: object) -> None:
    key = words.split()[0].partition("=")[0][2:].replace("-", "_")
    assert overrides_of(*words.split()) == {"data.uri": "photos", key: value}


def test_kwargs_of_the_network_reach_the_recipe() -> None:
    recipe = asked("--data.uri", "a", "--model.kwargs.drop_rate", "0.1", "--model.kwargs.stem", "deep").recipe
    assert recipe.model.kwargs == {"drop_rate": 0.1, "stem": "deep"}


def test_the_recipe_may_stand_after_the_flags(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("data: {uri: photos}")
    for words in (["--evaluation.sizes", "96,128"], ["--train.size", "96"], ["--resume"], ["--model.mean", "model"]):
        assert asked(*words, str(file)).name == str(file)


def test_a_stage_of_a_list_is_named_by_its_number(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("data: {uri: photos}\nstages:\n  - {size: 96}\n  - {size: 128, moves: head+stats}\n")
    found = asked(str(file), "--stages.1.lr", "0.001")
    assert (found.recipe.stages[0].lr, found.recipe.stages[1].lr) == (0.05, 0.001)
    assert found.overrides == {"stages.1.lr": 0.001}


def test_a_top_level_flag_reaches_the_stages() -> None:
    recipe = asked("--data.uri", "a", "--optim.lr", "0.2", "--fix.epochs", "2").recipe
    assert (recipe.train.lr, recipe.fix.lr, recipe.fix.enabled) == (0.2, 0.01, True)


def test_all_unknown_flags_come_at_once() -> None:
    assert refusal("my.yaml", "--train.sie", "3", "--resme", "--lr", "1", "--fix", "5", "-x", "--modle.name", "a") == [
        "6 problems",
        "  unknown option '-x' (options are written --name)",
        "  unknown option '--train.sie' - did you mean '--train.size'?",
        "  unknown option '--resme' - did you mean '--resume'?",
        "  unknown option '--lr' - did you mean '--train.lr'?",
        "  '--fix' is a section of the recipe; name one of its keys, for example --fix.size VALUE",
        "  unknown option '--modle.name' - did you mean '--model.name'?",
        "  'fixres train --help' lists the flags",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data.uri", "--data.uri: no value given; expected a text"),
        ("--data.uri a --ema.enabled --resume", "--ema.enabled: no value given; expected true or false"),
        ("--data.uri a train.lr=3", "which recipe"),
        ("a.yaml train.lr=3", "unexpected 'train.lr=3' - did you mean '--train.lr 3'?"),
        ("a.yaml b.yaml", "unexpected 'b.yaml'; one recipe at a time"),
        ("--data.uri a --resume=maybe", "--resume: expected true or false, got 'maybe'"),
        ("--data.uri a --train.size 12.5", "--train.size: expected an integer >= 1 or 'auto', got '12.5'"),
        ("--data.uri a --ema.enabled maybe", "--ema.enabled: expected true or false, got 'maybe'"),
        (
            "--data.uri a --optim.name adam",
            "--optim.name: expected one of 'sgd', 'nesterov', 'adamw', 'lamb', 'lion', 'muon', got 'adam' - did you",
        ),
        ("--data.uri a --evaluation.sizes 96,x", '--evaluation.sizes: expected a list of integers >= 1, got [96, "x"]'),
        ("--data.uri a --model.mean 1,2", "--model.mean: expected 3 numbers or 'model', got '1,2'"),
        ("--data.uri a --model.kwargs.a {b", "--model.kwargs.a: '{b' is not a YAML value"),
        ("--data.uri a --stages.0.lr 1", "--stages.0.lr: this recipe has no 'stages'; use train.* and fix.*"),
        ("", "which recipe?"),
        ("--train.size 96", "which recipe?"),
    ],
)
def test_what_cannot_be_is_refused_in_our_words(words: str, message: str) -> None:
    if message == "which recipe":
        message = "unknown recipe 'train.lr=3'"
    assert refusal(*words.split())[0].startswith(message)


def test_mistakes_of_the_file_and_of_the_flags_come_together(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("train:\n  epoch: 3\n")
    lines = refusal(str(file), "--train.size", "big")
    assert lines == [
        "2 problems",
        f"  {file}:2: unknown key 'train.epoch' - did you mean 'train.epochs'?",
        "  --train.size: expected an integer >= 1 or 'auto', got 'big'",
    ]


def words_for(kind: Kind) -> list[str]:
    """Return words for some value of this kind that is no default."""
    last = kind.alternatives[-1]
    if last.choices:
        return [last.choices[-1]]
    if last.elements is not None:
        element, number = last.elements
        if element.alternatives[-1].choices:
            return list(element.alternatives[-1].choices[: number or 2])
        return ["1"] * (number or 3) * (1 if element.elements is None else element.elements[1] or 1)
    return {int: ["7"], float: ["0.25"], bool: ["True"], str: ["some words"]}[last.type]


def test_values_are_read_as_a_file_holds_them() -> None:
    kinds = {key: kind_of_field(entry) for key, entry in keys_of(Recipe) if key not in ("stages", "model.kwargs")}
    for key, kind in kinds.items():
        words, elements = words_for(kind), kind.alternatives[-1].elements
        parts = [f"'{word}'" for word in words] if elements is not None and elements[0].type is str else words
        if elements is not None and elements[0].elements is not None:
            parts = [f"[{', '.join(parts[start : start + 2])}]" for start in range(0, len(parts), 2)]
        text = parts[0] if elements is None else f"[{', '.join(parts)}]"
        assert read_value(kind, words) == parse_value(text), key


def test_the_help_shows_every_key_with_the_value_of_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("train: {size: 97}\n")
    with pytest.raises(SystemExit) as stop:
        asked(str(file), "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    missing = [key for key, _ in keys_of(Recipe) if f"--{key} " not in text and key not in ("stages", "model.kwargs")]
    assert missing == []
    assert "--train.size  an integer >= 1 or 'auto'; default 97" in text
    assert "--ema.enabled  true or false; default false" in text
    assert "--model.kwargs.NAME" in text
    assert all(f"--{name}" in text for name in ("out", "resume", "dry-run", "quiet", "verbose"))


def test_the_help_of_a_list_of_stages_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("stages: [{size: 96}, {size: 128}]\n")
    with pytest.raises(SystemExit):
        asked(str(file), "-h")
    text = capsys.readouterr().out
    assert "--stages.1.size" in text
    assert "--train.size" not in text


def test_a_saved_recipe_is_repeated_with_one_change(tmp_path: Path) -> None:
    first = asked("--data.uri", "a", "--train.size", "96", "--fix.epochs", "2").recipe
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml(first))
    again = asked(str(file), "--seed", "4").recipe
    assert again == first.model_copy(update={"seed": 4})


# --- the other commands


@dataclass(frozen=True)
class ExampleFlags:
    """Flags of a command."""

    paths: Annotated[tuple[Path, ...], Positional("PATHS")] = ()
    """Pictures."""
    sizes: tuple[int, ...] = ()
    """Sizes."""
    top_k: Annotated[int, Field(ge=1)] = 5
    """How many."""
    format: Literal["table", "json"] = "table"
    """How."""
    workers: int | Literal["auto"] = "auto"
    """Loader processes."""
    out: Path | None = None
    """Where."""
    threshold: float | None = None
    """From when."""
    is_quiet: bool = False
    """Say less."""
    is_colour: bool = True
    """Say it in colour."""


def parse_example(*words: str) -> ExampleFlags:
    return parse_flags(words, ExampleFlags, "fixres example", "An example.")


def test_flags_of_a_command_in_any_order_and_spelling() -> None:
    flags = parse_example(
        "--sizes", "96,128", "160", "a,b.jpg", "--is_quiet", "c.jpg", "--top-k=3", "--out", "d", "e.jpg"
    )
    assert flags == ExampleFlags(
        (Path("a,b.jpg"), Path("c.jpg"), Path("e.jpg")), (96, 128, 160), 3, out=Path("d"), is_quiet=True
    )
    assert parse_example("a.jpg", "--threshold", "-1", "--workers", "2") == ExampleFlags(
        (Path("a.jpg"),), threshold=-1.0, workers=2
    )


def test_truth_values_of_a_command_may_stand_bare_or_be_typed_out() -> None:
    assert parse_example("--is-quiet").is_quiet
    assert parse_example("--is-quiet", "true").is_quiet
    assert not parse_example("--is-quiet", "no").is_quiet
    assert not parse_example("--is-colour=off").is_colour
    assert parse_example("--is-colour").is_colour


def test_all_mistakes_of_a_command_come_at_once() -> None:
    with pytest.raises(UserError) as caught:
        parse_example("a.jpg", "--topk", "3", "--top-k", "0", "--format", "jsn", "--sizes", "a", "--nothing-like-it")
    assert str(caught.value).splitlines() == [
        "5 problems",
        "  unknown option '--topk' - did you mean '--top-k'?",
        "  unknown option '--nothing-like-it'",
        "  --top-k: expected an integer >= 1, got '0'",
        "  --format: expected one of 'table', 'json', got 'jsn' - did you mean 'json'?",
        "  --sizes: expected a list of integers, got 'a'",
        "  'fixres example --help' lists the flags",
    ]


@dataclass(frozen=True)
class NeedyFlags:
    """Flags that must be given."""

    checkpoint: Annotated[str, Positional("CHECKPOINT")]
    """A run."""
    size: int
    """A size."""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "2 problems\n  CHECKPOINT is missing\n  --size is missing"),
        (["a"], "--size is missing"),
        (["--size", "3"], "CHECKPOINT is missing"),
        (["a", "--size"], "--size: no value given; expected an integer"),
    ],
)
def test_what_must_be_given_is_named(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_flags(words, NeedyFlags, "fixres needy")
    assert str(caught.value) == f"{message}\n  'fixres needy --help' lists the flags"


def test_too_many_words_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        parse_flags(["a", "b", "--size", "3"], NeedyFlags, "fixres needy")
    assert str(caught.value) == "unexpected 'b'\n  'fixres needy --help' lists the flags"


def test_the_help_of_a_command_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_example("--help")
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert "An example." in text
    assert text.startswith("usage: fixres example [PATHS ...] [--option VALUE ...]\n")
    assert "\n  --top-k  an integer >= 1; default 5\n        How many.\n" in text
    assert "None" not in text


def test_points_and_patterns_can_be_typed_as_flags() -> None:
    words = "--data.uri a --train.epochs 8 --schedule.name points --train.lr_points 0,0.1 2,1 8,0"
    words += " --optim.no_decay *.bias,norm --train.freeze conv1"
    recipe = asked(*words.split()).recipe
    assert recipe.train.lr_points == ((0, 0.1), (2, 1), (8, 0))
    assert (recipe.optim.no_decay, recipe.train.freeze) == (("*.bias", "norm"), ("conv1",))
    assert asked("--data.uri", "a", "--optim.no_decay", "none").recipe.optim.no_decay == "none"
