"""Imbalance: a sampler that shows every class equally often, and weights of the classes in the loss."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fixres.config.loading import load
from fixres.config.recipe import Data, Recipe, Stage
from fixres.data.class_weights import class_weights
from fixres.data.collections import Split, open_collection
from fixres.data.loader import Batch, train_batches
from fixres.data.sampling import balanced_order, rank_shard
from fixres.errors import UserError
from fixres.resolution import Preprocess
from fixres.training.losses import training_loss
from fixres.training.run import run_recipe

# `fixres.training.loop` is the verb.
train = import_module("fixres.training.loop")

ALL = open_collection(Data(uri="synthetic:classes=3,images=24,size=24")).split("train")


def unequal() -> Split:
    """Return 8 pictures of the first class, 3 of the second, 1 of the third."""
    chosen = [np.flatnonzero(ALL.labels == label)[:num] for label, num in enumerate((8, 3, 1))]
    return ALL.take("train", np.sort(np.concatenate(chosen)))


FEW = unequal()


# --- the balanced sampler


@given(
    st.lists(st.sampled_from([0, 0, 0, 0, 1, 1, 3]), min_size=1, max_size=50), st.integers(0, 120), st.integers(0, 5)
)
def test_every_class_comes_equally_often_and_no_picture_twice_before_all(
    labels: list[int], num: int, epoch: int
) -> None:
    given_labels = np.array(labels, dtype=np.int64)
    order = balanced_order(given_labels, num, 0, 0, epoch)
    assert (len(order), order.dtype) == (num, np.int64)
    present = sorted(set(labels))
    # In every beginning of the epoch, so that a cut last batch or a stop takes nothing from any class.
    for end in {num, num // 2, num // 3}:
        counts = Counter(given_labels[order[:end]].tolist())
        assert max(counts.get(label, 0) for label in present) - min(counts.get(label, 0) for label in present) <= 1
    for label in present:
        shown = [index for index in order.tolist() if labels[index] == label]
        size = labels.count(label)
        for start in range(0, len(shown), size):
            cycle = shown[start : start + size]
            assert len(set(cycle)) == len(cycle)


def test_the_balanced_order_belongs_to_seed_stage_and_epoch() -> None:
    orders = [balanced_order(FEW.labels, 30, *c).tolist() for c in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len({tuple(order) for order in orders}) == 4
    assert balanced_order(FEW.labels, 30, 0, 0, 0).tolist() == orders[0]


def test_pictures_of_a_class_and_classes_within_a_round_have_equal_chances() -> None:
    labels = np.repeat([0, 1, 2], [10, 2, 4]).astype(np.int64)
    orders = np.stack([balanced_order(labels, 3, 0, 0, epoch) for epoch in range(3000)])
    first_class = np.bincount(labels[orders[:, 0]], minlength=3)
    # 2 degrees of freedom, 99.9 % point 13.8.
    assert ((first_class - 1000) ** 2 / 1000).sum() < 13.8
    of_first = np.bincount(orders[labels[orders] == 0], minlength=10)
    # 9 degrees of freedom, 99.9 % point 27.9.
    assert ((of_first - 300) ** 2 / 300).sum() < 27.9


def test_a_rare_class_of_a_large_set_costs_no_loop_over_its_repeats() -> None:
    labels = np.zeros(200_000, dtype=np.int64)
    labels[:2] = 1
    counts = np.bincount(balanced_order(labels, 200_000, 0, 0, 0))
    assert counts[:2].tolist() == [50_000, 50_000]
    assert set(counts[2:].tolist()) == {0, 1}


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_shards_of_a_balanced_epoch_partition_it(world: int) -> None:
    order = balanced_order(FEW.labels, 30, 0, 0, 0)
    shards = np.concatenate([rank_shard(order, rank, world) for rank in range(world)])
    assert sorted(shards.tolist()) == sorted(order.tolist())


def trained(first_step: int = 0, workers: int = 0, **values: Any) -> list[Batch]:
    """Return all batches of a stage on the unequal split."""
    fields: dict[str, Any] = {
        "size": 16, "epochs": 3, "batch_size": 6, "crop": "random", "crop_scale": (0.2, 1.0), "augment": "flip",
    }  # fmt: skip
    stage = Stage.model_construct(**(fields | values))
    batches = train_batches(
        FEW, stage, Preprocess(16), seed=0, stage_index=0, workers=workers, bad=[], first_step=first_step
    )
    return list(batches)


def same(first: list[Batch], second: list[Batch]) -> bool:
    """Return whether two lists of batches are bit-equal."""
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.indices, b.indices)
        for a, b in zip(first, second, strict=True)
    )


def test_balanced_batches_hold_every_class_equally_often_and_copies_differ() -> None:
    for batch in trained(sampler="balanced"):
        assert torch.bincount(batch.labels, minlength=3).tolist() == [2, 2, 2]
        only = batch.images[batch.labels == 2]
        assert not torch.equal(only[0], only[1])
    plain = torch.cat([batch.labels for batch in trained()])
    assert torch.bincount(plain, minlength=3).tolist() == [24, 9, 3]


def test_balanced_batches_do_not_depend_on_workers_and_go_on_at_any_step() -> None:
    whole = trained(sampler="balanced")
    for workers in (1, 4):
        assert same(trained(sampler="balanced", workers=workers), whole)
    for step in range(1, len(whole)):
        assert same(trained(sampler="balanced", first_step=step), whole[step:])


# --- class weights


def test_auto_is_inverse_frequency_with_mean_one_over_pictures() -> None:
    weights = class_weights("auto", FEW)
    assert weights == pytest.approx((12 / 24, 12 / 9, 12 / 3))
    assert np.mean(np.array(weights)[FEW.labels]) == pytest.approx(1)
    assert class_weights("none", FEW) is None


def test_a_class_without_pictures_gets_no_weight_and_takes_none() -> None:
    two = FEW.take("train", np.flatnonzero(FEW.labels < 2))
    assert class_weights("auto", two) == pytest.approx((11 / 16, 11 / 6, 0))


def names(values: dict[int, object]) -> dict[str, object]:
    """Return weights by class name."""
    return {FEW.classes[label]: value for label, value in values.items()}


def csv_of(values: dict[str, object], header: str = "class,weight") -> str:
    """Return the weights as CSV."""
    return "\r\n".join([header, *(f'"{name}",{value}' for name, value in values.items())])


@pytest.mark.parametrize("kind", ["json", "csv", "csv with a byte order mark"])
def test_a_file_names_classes_in_any_order_and_only_proportions_count(tmp_path: Path, kind: str) -> None:
    values = names({2: 40, 0: 10, 1: 20.0})
    text = json.dumps(values) if kind == "json" else csv_of(values)
    file = tmp_path / "weights"
    file.write_text(text, encoding="utf-8-sig" if "mark" in kind else "utf-8")
    weights = class_weights(str(file), FEW)
    assert weights is not None
    assert [weight / weights[0] for weight in weights] == pytest.approx([1, 2, 4])
    assert np.mean(np.array(weights)[FEW.labels]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(names({0: 1, 1: 1})), rf"has no weight for {FEW.classes[2]}\n.*, with every class"),
        (json.dumps({**names({0: 1, 1: 1, 2: 1}), "zebra": 1}), r"unknown class 'zebra'\n  classes: "),
        (json.dumps(names({0: 1, 1: -1, 2: 1})), r"must be a number of at least 0, not -1"),
        (json.dumps(names({0: 1, 1: True, 2: 1})), r"must be a number of at least 0, not True"),
        (json.dumps(names({0: 1, 1: "much", 2: 1})), r"must be a number of at least 0, not 'much'"),
        (csv_of(names({0: 1, 1: "nan", 2: 1})), r"must be a number of at least 0, not 'nan'"),
        (csv_of(names({0: 1, 1: "", 2: 1})), r"must be a number of at least 0, not ''"),
        (json.dumps(names({0: 0, 1: 0, 2: 0})), r"all weights of the classes in 'train' are 0"),
        (csv_of(names({0: 1, 1: 1, 2: 1}), "name,weight"), r"has the columns name, weight\n.*class,weight"),
        (csv_of(names({0: 1, 1: 1, 2: 1})) + f"\n{FEW.classes[0]},3", r"is named twice"),
        (f'{{"{FEW.classes[0]}": 1, "{FEW.classes[0]}": 2}}', r"is named twice"),
        ("[1, 2, 3]", r"is a list, not weights by class name"),
        ("{", r"is not JSON"),
        ("", r"has the columns \(none\)"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "weights"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        class_weights(str(file), FEW)


def test_a_missing_file_names_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file 'auto1' - did you mean 'auto'\?\n  give none, auto or a JSON or CSV"):
        class_weights("auto1", FEW)
    with pytest.raises(UserError, match="cannot read"):
        class_weights(str(tmp_path), FEW)


# --- the loss

WEIGHTS = (0.5, 4 / 3, 4.0)


def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Return 8 rows of logits and their labels."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, generator=generator), torch.tensor([0, 0, 1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_weights_it_is_torchs_loss_to_the_bit(smoothing: float) -> None:
    logits, labels = logits_and_labels()
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert torch.equal(training_loss(logits, labels, Stage(label_smoothing=smoothing)), expected)
    soft = F.one_hot(labels, 3).float() * (1 - smoothing) + smoothing / 3
    assert torch.equal(training_loss(logits, soft, Stage(label_smoothing=smoothing)), F.cross_entropy(logits, soft))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_weight_multiplies_the_loss_of_its_pictures(smoothing: float) -> None:
    logits, labels = logits_and_labels()
    each = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    expected = sum(WEIGHTS[label] * loss for label, loss in zip(labels.tolist(), each, strict=True)) / 8
    assert training_loss(logits, labels, Stage(label_smoothing=smoothing), WEIGHTS) == pytest.approx(float(expected))
    if smoothing == 0:
        weighted = F.cross_entropy(logits, labels, torch.tensor(WEIGHTS))
        normaliser = sum(WEIGHTS[label] for label in labels.tolist()) / 8
        assert float(weighted) * normaliser == pytest.approx(float(expected))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets_of_whole_labels_have_the_loss_of_the_labels(smoothing: float) -> None:
    logits, labels = logits_and_labels()
    soft = F.one_hot(labels, 3).float() * (1 - smoothing) + smoothing / 3
    expected = training_loss(logits, labels, Stage(label_smoothing=smoothing), WEIGHTS)
    assert float(training_loss(logits, soft, Stage(label_smoothing=smoothing), WEIGHTS)) == pytest.approx(
        float(expected), rel=1e-5
    )


def test_a_mixed_picture_has_the_mixed_weight() -> None:
    logits, _ = logits_and_labels()
    target = torch.tensor([[0.75, 0.0, 0.25]])
    expected = (0.75 * 0.5 + 0.25 * 4.0) * F.cross_entropy(logits[:1], target)
    assert float(training_loss(logits[:1], target, Stage(), WEIGHTS)) == pytest.approx(float(expected))


def test_micro_batches_add_up_to_the_batch() -> None:
    logits, labels = logits_and_labels()
    halves = [training_loss(logits[k : k + 4], labels[k : k + 4], Stage(label_smoothing=0.1), WEIGHTS) for k in (0, 4)]
    assert float(sum(halves)) / 2 == pytest.approx(
        float(training_loss(logits, labels, Stage(label_smoothing=0.1), WEIGHTS))
    )


# --- whole runs

Make = Callable[..., Recipe]


def events(folder: Path) -> list[Any]:
    """Return step and loss of every train event."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(event["step"], event["loss"]) for event in lines if event["event"] == "train"]


@pytest.mark.parametrize("option", [{"class_weights": "auto"}, {"sampler": "balanced"}], ids=str)
def test_a_run_uses_it_and_goes_on_after_a_stop_to_the_bit(
    make_recipe: Make, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: dict[str, str]
) -> None:
    for file in sorted((photos / "train" / "blue").iterdir())[4:]:
        file.unlink()
    settings: dict[str, Any] = {
        "train": {"epochs": 2, "batch_size": 4},
        "augment": {"mixup": 0.2, "label_smoothing": 0.1},
    }
    recipe = make_recipe(data={"uri": str(photos), **option}, **settings)
    run_recipe(recipe, tmp_path / "whole")
    run_recipe(make_recipe(data={"uri": str(photos)}, **settings), tmp_path / "plain")
    assert events(tmp_path / "whole") != events(tmp_path / "plain")

    update, done = train.update, 0

    def interrupted(*args: Any) -> float:
        nonlocal done
        if done == 5:
            raise KeyboardInterrupt
        done += 1
        return update(*args)

    monkeypatch.setattr(train, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "cut")
    monkeypatch.setattr(train, "update", update)
    run_recipe(recipe, tmp_path / "cut", resume=True)
    assert events(tmp_path / "cut") == events(tmp_path / "whole")
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("cut", "whole"))
    assert one.read_bytes() == other.read_bytes()


def test_a_saved_recipe_finds_the_weights_from_anywhere(
    make_recipe: Make, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.json").write_text('{"red": 1, "blue": 3}')
    monkeypatch.chdir(tmp_path)
    recipe = make_recipe(
        data={"uri": str(photos), "class_weights": "weights.json"}, train={"epochs": 1, "batch_size": 8}
    )
    run_recipe(recipe, tmp_path / "first")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    saved = load(tmp_path / "first" / "recipe.yaml")
    assert saved.data.class_weights == str(tmp_path / "weights.json")
    run_recipe(saved, tmp_path / "second")
    assert events(tmp_path / "second") == events(tmp_path / "first")
    said = (tmp_path / "first" / "metrics.jsonl").read_text()
    assert "class weights from 0.5 (red) to 1.5 (blue), mean 1 over the pictures" in said


def test_weights_of_unknown_classes_stop_before_training(make_recipe: Make, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.json").write_text('{"red": 1, "bleu": 3}')
    recipe = make_recipe(
        data={"uri": str(photos), "class_weights": str(tmp_path / "weights.json")}, train={"batch_size": 8}
    )
    with pytest.raises(UserError, match=r"unknown class 'bleu' - did you mean 'blue'\?"):
        run_recipe(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not events(tmp_path / "run")


def test_rarity_is_not_counted_twice() -> None:
    overrides = {"data.uri": "x", "data.sampler": "balanced", "data.class_weights": "auto"}
    with pytest.raises(UserError, match=r"data.class_weights: auto counts rarity twice: train.sampler balanced"):
        load(None, overrides)
    fixed = load(None, {**overrides, "train.sampler": "shuffle", "fix.epochs": 1, "fix.sampler": "shuffle"})
    assert fixed.train.sampler == "shuffle"
