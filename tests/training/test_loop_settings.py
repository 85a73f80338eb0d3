"""What a recipe asks of the loop happens in the loop: sizes, schedules, losses, a teacher, early ends, checkpoints."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.config.loading import validate
from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.io.tensors import read_checkpoint
from fixres.runtime.run_folder import read_events
from fixres.runtime.signals import StopSignals
from fixres.training import checkpointing
from fixres.training import micro_batch as microbatch
from fixres.training.loop import StageTrainer
from fixres.training.micro_batch import chunk_count, largest_that_fits
from fixres.training.run import run_recipe
from tests.support.several import run_processes
from tests.training.test_loop import assert_same_run, weights

Make = Callable[..., Recipe]


def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that fills with the shape of every training batch."""
    seen: list[tuple[int, ...]] = []
    update = StageTrainer.step

    def spied(shop: Any, run: Any, state: Any, wrapped: Any, batch: Any, lr: float, mixer: Any) -> float:
        seen.append((*batch[0].shape, round(lr, 6)))
        return update(shop, run, state, wrapped, batch, lr, mixer)

    monkeypatch.setattr(StageTrainer, "step", spied)
    return seen


def test_a_stage_trains_at_its_sizes_with_their_batches_and_rates(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = shapes(monkeypatch)
    stage = {"size": 64, "sizes": [32, 64], "epochs": 2, "batch_size": 8, "batch_rule": "area", "lr": 0.02}
    schedule = {"name": "constant", "warmup_epochs": 0}
    run_recipe(make_recipe(train=stage, schedule=schedule), tmp_path / "r")
    # 39 pictures: one batch of 32 at half the side, four of 8 at the stage's own.
    assert seen[0] == (32, 3, 32, 32, 0.08)
    assert seen[1:] == [(8, 3, 64, 64, 0.02)] * (len(seen) - 1)
    events = read_events(tmp_path / "r")
    assert [e["results"][0]["size"] for e in events if e["event"] == "eval"] == [64, 64]
    assert [e["epoch"] for e in events if e["event"] == "epoch"] == [1, 2]


def test_a_network_built_for_one_size_trains_at_one(make_recipe: Make, tmp_path: Path) -> None:
    stage = {"size": 160, "sizes": [128, 160], "epochs": 2, "batch_size": 8}
    with pytest.raises(UserError, match="is built for one size: no stage can train it at 160 and 128"):
        run_recipe(make_recipe(model={"name": "test_vit"}, train=stage), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_frozen_stem_stays_and_the_rest_moves(make_recipe: Make, tmp_path: Path) -> None:
    run_recipe(make_recipe(train={"size": 32, "epochs": 1, "batch_size": 16}), tmp_path / "a")
    source = str(tmp_path / "a" / "model")
    stage = {"size": 32, "epochs": 1, "batch_size": 16, "freeze": ["conv1", "layer1"]}
    run_recipe(make_recipe(model={"weights": source}, train=stage), tmp_path / "b")
    before, after = weights(tmp_path / "a"), weights(tmp_path / "b")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in moved if name.startswith(("conv1.", "layer1."))]
    assert {"layer2.0.conv1.weight", "bn1.running_mean", "fc.weight"} <= moved


def test_a_stage_without_progress_ends_early_and_resumes_to_the_same_end(make_recipe: Make, tmp_path: Path) -> None:
    stage = {"size": 32, "epochs": 9, "batch_size": 16, "lr": 1e-9, "patience": 2}
    recipe = make_recipe(train=stage)
    run_recipe(recipe, tmp_path / "a")
    events = read_events(tmp_path / "a")
    assert [e["epoch"] for e in events if e["event"] == "eval"][-1] < 9
    kept = next(e for e in events if e["event"] == "kept")
    last = max(e["epoch"] for e in events if e["event"] == "eval")
    assert last == kept["epoch"] + 2
    assert "no better for 2 evaluations" in kept["why"]
    (tmp_path / "a" / "status.json").write_text(json.dumps({"state": "running", "exit_code": None, "step": 0}))
    before = weights(tmp_path / "a")
    run_recipe(recipe, tmp_path / "a", resume=True)
    assert [e["epoch"] for e in read_events(tmp_path / "a") if e["event"] == "eval"][-1] == last
    assert all(torch.equal(before[name], value) for name, value in weights(tmp_path / "a").items())


def test_a_student_follows_its_teacher(make_recipe: Make, tmp_path: Path) -> None:
    """With the teacher's loss alone, wrong labels do not matter, and a student that is the teacher has no loss."""
    run_recipe(make_recipe(), tmp_path / "teacher")
    source = str(tmp_path / "teacher" / "model")
    stage = {"size": 32, "epochs": 1, "batch_size": 16, "lr": 1e-9, "moves": "head", "mixup": 0.2}
    distill = {"teacher": source, "alpha": 1.0}
    run_recipe(make_recipe(model={"weights": source}, train=stage, distill=distill), tmp_path / "same")
    assert next(e["loss"] for e in read_events(tmp_path / "same") if e["event"] == "train") < 1e-5
    labels = {"teacher": source, "alpha": 0.0}
    run_recipe(make_recipe(model={"weights": source}, train=stage, distill=labels), tmp_path / "labels")
    assert next(e["loss"] for e in read_events(tmp_path / "labels") if e["event"] == "train") > 0.05


def test_a_teacher_of_other_classes_is_refused_before_anything_is_written(make_recipe: Make, tmp_path: Path) -> None:
    run_recipe(make_recipe(), tmp_path / "teacher")
    other = make_recipe(
        data={"uri": "synthetic:classes=4,images=64,size=48"}, distill={"teacher": str(tmp_path / "teacher")}
    )
    with pytest.raises(UserError, match=r"the teacher .* does not know '"):
        run_recipe(other, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_the_newest_checkpoints_are_kept_and_each_can_be_used(make_recipe: Make, tmp_path: Path) -> None:
    output = {"save_every_steps": 1, "keep_newest": 2}
    run_recipe(make_recipe(output=output), tmp_path / "r")
    folder = tmp_path / "r" / "checkpoints"
    assert sorted(p.name for p in folder.glob("step-*")) == ["step-1-5.pt", "step-1-6.pt"]
    assert (folder / "step-1-6.pt").read_bytes() == (folder / "last.pt").read_bytes()
    run_recipe(make_recipe(model={"weights": f"{folder / 'step-1-5.pt'}#raw"}), tmp_path / "s")


def test_more_epochs_need_extend_and_go_on_from_the_end(make_recipe: Make, tmp_path: Path) -> None:
    def recipe(epochs: int, **more: Any) -> Recipe:
        schedule = {"name": "constant", "warmup_epochs": 0}
        stage = {"size": 32, "epochs": epochs, "batch_size": 16, **more}
        return make_recipe(train=stage, schedule=schedule, evaluation={"keep": "last"})

    run_recipe(recipe(3), tmp_path / "whole")
    run_recipe(recipe(2), tmp_path / "r")
    with pytest.raises(UserError, match=r"train.epochs: 2 -> 3"):
        run_recipe(recipe(3), tmp_path / "r", resume=True)
    with pytest.raises(UserError, match=r"train.lr"):
        run_recipe(recipe(3, lr=0.5), tmp_path / "r", resume=True, extend=True)
    with pytest.raises(UserError, match=r"train.epochs: 2 -> 1"):
        run_recipe(recipe(1), tmp_path / "r", resume=True, extend=True)
    run_recipe(recipe(3), tmp_path / "r", resume=True, extend=True)
    assert json.loads((tmp_path / "r" / "status.json").read_text()) == {"state": "done", "exit_code": 0, "step": 9}
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "r")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_one_stage_of_a_list_can_be_extended(make_recipe: Make, tmp_path: Path) -> None:
    def recipe(epochs: int, lr: float = 0.01) -> Recipe:
        first = {"size": 32, "epochs": 1, "batch_size": 16}
        settings = make_recipe().model_dump(mode="json", exclude={"train", "fix", "stages"})
        return validate({**settings, "stages": [first, {**first, "epochs": epochs, "lr": lr}]})

    run_recipe(recipe(1), tmp_path / "r")
    with pytest.raises(UserError, match=r"another recipe\n  stages.1.lr: 0.01 -> 0.5\n  go on"):
        run_recipe(recipe(1, lr=0.5), tmp_path / "r", resume=True)
    run_recipe(recipe(3), tmp_path / "r", resume=True, extend=True)
    assert [e["epoch"] for e in read_events(tmp_path / "r") if e["event"] == "eval"] == [1, 1, 2, 3]


def test_a_disk_that_fills_up_while_saving_is_said_and_the_checkpoint_before_stays(
    make_recipe: Make, tmp_path: Path
) -> None:
    recipe = make_recipe(train={"size": 32, "epochs": 3, "batch_size": 16})
    found = run_processes(1, _filling, recipe, tmp_path / "r")
    assert isinstance(found[0], UserError), found
    assert "last.pt: the disk is full" in str(found[0])
    assert read_checkpoint(tmp_path / "r" / "checkpoints" / "last.pt")["step"] == 3
    assert json.loads((tmp_path / "r" / "status.json").read_text())["exit_code"] == 2
    run_recipe(recipe, tmp_path / "r", resume=True)


def _filling(recipe: Recipe, folder: Path) -> None:
    """Train, and let no file grow beyond 1 MB after the first checkpoint."""
    save = checkpointing.save_state

    def limited(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    checkpointing.save_state = limited
    run_recipe(recipe, folder)


def test_a_run_does_not_go_on_with_other_pictures(make_recipe: Make, photos: Path, tmp_path: Path) -> None:
    recipe = make_recipe(
        data={"uri": f"folder:{photos}", "holdout": 0}, train={"size": 32, "epochs": 2, "batch_size": 8}
    )
    run_recipe(recipe, tmp_path / "r")
    (tmp_path / "r" / "status.json").unlink()
    before = (tmp_path / "r" / "metrics.jsonl").read_bytes()
    picture = photos / "train" / "red" / "00.jpg"
    picture.rename(picture.with_name("99.jpg"))
    with pytest.raises(
        UserError, match=r"'train' .* is not the one the run began with: 24 pictures then, 24 now, under"
    ):
        run_recipe(recipe, tmp_path / "r", resume=True)
    assert (tmp_path / "r" / "metrics.jsonl").read_bytes() == before


def test_raw_weights_are_measured_beside_their_average(make_recipe: Make, tmp_path: Path) -> None:
    run_recipe(make_recipe(ema={"enabled": True, "decay": 0.9, "rule": "constant"}), tmp_path / "r")
    event = [e for e in read_events(tmp_path / "r") if e["event"] == "eval"][-1]
    assert event["weights"] == "ema"
    assert event["raw_results"][0]["loss"] != event["results"][0]["loss"]


def test_micro_batches_of_a_network_without_batch_norm_change_nothing_but_rounding(
    make_recipe: Make, tmp_path: Path
) -> None:
    def run(micro_batch: Any, name: str) -> list[float]:
        stage = {"size": 32, "epochs": 2, "batch_size": 16, "lr": 0.01}
        recipe = make_recipe(
            model={"name": "test_convnext"},
            train=stage,
            runtime={"micro_batch": micro_batch},
            output={"log_every_steps": 1},
        )
        run_recipe(recipe, tmp_path / name)
        return [e["loss"] for e in read_events(tmp_path / name) if e["event"] == "train"]

    whole = run("auto", "a")
    assert run(3, "b") == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize(
    ("num_images", "share", "micro_batch", "chunks"),
    [(16, 16, 16, 1), (16, 16, 5, 4), (15, 16, 8, 2), (3, 16, 2, 1), (9, 16, 2, 4)],
)
def test_no_micro_batch_is_left_with_one_picture(num_images: int, share: int, micro_batch: int, chunks: int) -> None:
    assert chunk_count(num_images, share, 1, 1) == num_images
    mixed = chunk_count(share, share, micro_batch, 2, is_even=True)
    assert {len(range(share)[number::mixed]) % 2 for number in range(mixed)} == {0}
    found = chunk_count(num_images, share, micro_batch, 2)
    assert found == chunks
    sizes = [len(range(num_images)[number::found]) for number in range(found)]
    assert sum(sizes) == num_images
    assert min(sizes) >= min(2, num_images)


@pytest.mark.parametrize(
    ("limit", "found", "tried"), [(99, 48, [48]), (20, 12, [48, 24, 12]), (2, 2, [48, 24, 12, 6, 3, 2])]
)
def test_the_largest_micro_batch_that_fits_is_found(limit: int, found: int, tried: list[int]) -> None:
    seen: list[int] = []

    def attempt(count: int) -> None:
        seen.append(count)
        if count > limit:
            raise torch.OutOfMemoryError

    assert largest_that_fits(48, 2, attempt, lambda fits: fits) == found
    assert seen == tried


def test_memory_that_holds_no_batch_at_all_is_said() -> None:
    def attempt(count: int) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(UserError, match="not even 2 pictures fit"):
        largest_that_fits(8, 2, attempt, lambda fits: fits)


def test_trying_a_micro_batch_leaves_no_trace(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(model={"name": "test_resnet", "kwargs": {"drop_rate": 0.3}})
    run_recipe(recipe, tmp_path / "a")
    tried: list[int] = []

    def fit(shop: Any, run: Any, state: Any) -> int:
        monkeypatch.setattr(torch, "get_device_module", lambda device: torch.cuda)
        microbatch._try_step(shop, run, state, 16, 32)
        tried.append(16)
        return 16

    monkeypatch.setattr(train, "fit_micro_batch", fit)
    run_recipe(recipe, tmp_path / "b")
    assert tried == [16]
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_a_second_interrupt_stops_at_once() -> None:
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
