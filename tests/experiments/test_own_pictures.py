"""`train PHOTOS` on small pictures with a tiny network: what it leaves, and when it is stopped or out of time."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fixres
from fixres.checkpoints import resolve
from fixres.checkpoints.folder_write import save_product
from fixres.checkpoints.product import Sheet
from fixres.config.loading import load
from fixres.data.all_labelled import all_labelled
from fixres.data.collections import open_collection
from fixres.errors import Stopped, UserError
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import measure_product
from fixres.experiments import chosen_recipes, first_look, own_pictures, speeds
from fixres.experiments.own_pictures import Wish, train_pictures
from fixres.experiments.refit import refit, refit_recipe, require_own
from fixres.models.build import build_model
from fixres.resolution import Preprocess
from fixres.runtime.run_folder import read_events, read_status
from fixres.training.cached_solver import logistic_head
from fixres.training.probe import CHOICES, Probed, ProbeJob, probe
from fixres.training.probe_cells import Row, choose
from fixres.training.run import run_recipe

URI = "synthetic:classes=3,images=90,size=56"
QUICK = {"runtime.threads": 1, "data.workers": 0, "output.tracker": "none", "evaluation.batch_size": 16}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small network with weights of its own, in a model folder."""
    folder = tmp_path_factory.mktemp("network") / "model"
    torch.manual_seed(0)
    model = build_model("test_resnet", 2)
    sheet = Sheet(("a", "b"), Preprocess(64), 64, "all", "raw", (), {}, {}, {})
    save_product(folder, model, sheet)
    return str(folder)


def be_quick(patch: pytest.MonkeyPatch) -> None:
    """Try few sizes and few strengths of the head's pull."""
    patch.setattr(own_pictures, "PROBE_SIZES", (32, 48))
    patch.setattr(speeds, "SIZES", (32, 48))
    patch.setattr(own_pictures, "TRAIN_SIZES", (32, 48))
    patch.setattr(logistic_head, "DECAYS", (1.0, 0.1, 0.01))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)


def choose_pictures(folder: Path, network: str, minutes: float = 15.0, **settings: Any) -> list[dict[str, Any]]:
    """Train in more minutes than the slowest machine needs, unless the test is of the minutes."""
    told: list[dict[str, Any]] = []
    wish = Wish(URI, minutes, (network,), {**QUICK, **settings})
    train_pictures(wish, folder, started=time.monotonic(), listeners=[told.append])
    return told


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, network: str) -> tuple[Path, list[dict[str, Any]]]:
    with pytest.MonkeyPatch.context() as patch:
        be_quick(patch)
        folder = tmp_path_factory.mktemp("chosen") / "run"
        return folder, choose_pictures(folder, network, **{"train.epochs": 2})


def test_it_says_what_it_does_and_leaves_an_ordinary_run(chosen: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, told = chosen
    said = [event["text"] for event in told if event["event"] == "begin"]
    assert "150 pictures of 3 classes" in said[0]
    assert any("a first product after" in text for text in said)
    assert any(text.startswith("training test_resnet at") and "for 2 epochs" in text for text in said)
    assert read_status(folder)["state"] == "done"
    assert fixres.load(folder).classes == ("0-disc", "1-square", "2-triangle")
    record = json.loads((folder / CHOICES).read_text())
    states = [row["state"] for row in record["probe"]["rows"]]
    assert states[0] == "measured"
    assert set(states) <= {"measured", "not run"}
    assert record["first_product_seconds"] <= record["seconds"]


def test_the_probe_the_trained_and_the_fixed_network_are_compared_and_the_best_ships(
    chosen: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, _ = chosen
    (found,) = [event for event in read_events(folder) if event["event"] == "candidates"]
    assert {row["kind"] for row in found["candidates"]} == {"probe", "trained", "fixed"}
    (shipped,) = [row for row in found["candidates"] if row["is_shipped"]]
    assert fixres.load(folder).preprocess.size == shipped["size"]
    base = min(row["loss_calibrated"] for row in found["candidates"] if row["kind"] == "probe")
    assert shipped["kind"] == "probe" or shipped["loss_calibrated"] < base


def test_the_recipe_holds_the_outcome_and_repeats_the_product(
    chosen: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, _ = chosen
    recipe = load(folder / "recipe.yaml")
    assert recipe.train.epochs == 2
    assert isinstance(recipe.fix.size, int)
    run_recipe(recipe, tmp_path / "again", split_from=folder / "split.json")
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (folder, tmp_path / "again")]
    assert weights[0] == weights[1]


def test_a_training_the_clock_ends_is_repeated_by_its_recipe(
    tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []

    # All of the hour is kept for the end, so that the training is over as soon as it has begun.
    monkeypatch.setattr(own_pictures, "_END_SECONDS", 3600.0)
    monkeypatch.setattr(own_pictures, "_LEAST_SECONDS", -1e9)
    monkeypatch.setattr(own_pictures, "plan_training", lambda *_: own_pictures.Planned(32, 400, 1.0))
    wish = Wish(URI, 60, (network,), QUICK)
    train_pictures(wish, tmp_path / "run", started=time.monotonic(), listeners=[told.append])
    recipe = load(tmp_path / "run" / "recipe.yaml")
    assert any(event["event"] == "out_of_time" for event in told)
    assert recipe.train.stop_step > 0
    run_recipe(recipe, tmp_path / "again", split_from=tmp_path / "run" / "split.json")
    weights = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("run", "again")]
    assert weights[0] == weights[1]


def test_without_time_to_train_the_head_on_frozen_features_is_the_product(tmp_path: Path, network: str) -> None:
    told = choose_pictures(tmp_path / "run", network, minutes=0.01)
    recipe = load(tmp_path / "run" / "recipe.yaml")
    assert not recipe.train.enabled
    assert recipe.fix.moves == "head"
    assert fixres.load(tmp_path / "run").preprocess.size == recipe.fix.size
    assert " s: a product alone takes more than 0.01 min here" in told[-1]["text"]


def test_without_time_for_all_pictures_the_head_is_solved_on_some_and_a_refit_on_all(
    tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_pictures, "SAMPLE", 24)
    monkeypatch.setattr(own_pictures, "plan_training", lambda *_: None)
    monkeypatch.setattr(speeds.Speeds, "head_alone", lambda *_: 1e9)
    told = choose_pictures(tmp_path / "run", network)
    said = [event["text"] for event in told if event["event"] in ("begin", "note")]
    assert any(text.startswith("the head is solved on 24 of 90 training pictures") for text in said), said
    assert "solved on 24 of the 90 training pictures: fix.epoch_samples" in said
    assert any(event["event"] == "solved" for event in read_events(tmp_path / "run"))
    assert load(tmp_path / "run" / "recipe.yaml").fix.epoch_samples == 24
    assert fixres.load(tmp_path / "run").classes == ("0-disc", "1-square", "2-triangle")
    refit(tmp_path / "run", tmp_path / "final")
    assert load(tmp_path / "final" / "recipe.yaml").fix.epoch_samples == 1.0


def test_what_there_is_no_time_to_solve_again_is_not_chosen(
    tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def takes(_choice: Any, row: Row, *_: Any) -> float:
        # 48 px has the least loss of generated pictures by far, and the first cell is of 48 px with the other crop.
        return math.inf if row.cell.preprocess.crop_ratio == 1.0 or row.cell.size == 32 else 0.0

    monkeypatch.setattr(own_pictures._Choice, "_head_alone", takes)
    monkeypatch.setattr(own_pictures, "_LEAST_SECONDS", math.inf)
    choose_pictures(tmp_path / "run", network)
    probe = json.loads((tmp_path / "run" / CHOICES).read_text())["probe"]
    assert [row["state"] for row in probe["rows"]].count("measured") > 1
    assert (probe["chosen"]["size"], probe["chosen"]["crop_ratio"]) == (48, 0.875)


def test_what_was_chosen_stays_where_larger_sizes_find_no_time(
    tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is smaller than the size of the first product."""
    monkeypatch.setattr(own_pictures, "plan_training", lambda *_: None)
    monkeypatch.setattr(own_pictures, "choose", lambda rows: choose(sorted(rows, key=lambda row: row.cell.size)[:1]))
    jobs: list[ProbeJob] = []

    def probing(job: ProbeJob) -> Probed:
        jobs.append(job)
        return probe(job if len(jobs) == 1 else replace(job, seconds_left=lambda: 0.0))

    monkeypatch.setattr(own_pictures, "probe", probing)
    choose_pictures(tmp_path / "run", network)
    assert jobs[1].first_size == 32
    assert fixres.load(tmp_path / "run").preprocess.size == 32


def test_without_weights_a_network_is_trained_from_scratch_and_it_is_said_what_that_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_look, "SMALL_NETWORKS", ())
    for module in (own_pictures, chosen_recipes):
        monkeypatch.setattr(module, "SCRATCH", "test_resnet")
    told: list[dict[str, Any]] = []
    wish = Wish(URI, 0.5, (), {**QUICK, "train.epochs": 1})
    train_pictures(wish, tmp_path / "run", started=time.monotonic(), listeners=[told.append])
    assert any("from random weights" in event.get("text", "") for event in told)
    recipe = load(tmp_path / "run" / "recipe.yaml")
    assert (recipe.model.weights, recipe.train.head, recipe.train.norm_statistics) == ("none", "keep", "batch")
    assert fixres.load(tmp_path / "run").preprocess.size == recipe.fix.size


def test_what_is_decided_already_stays(chosen: tuple[Path, list[dict[str, Any]]], tmp_path: Path, network: str) -> None:
    choose_pictures(tmp_path / "run", network, **{"train.size": 32, "train.epochs": 1, "optim.lr": 3e-5, "seed": 4})
    recipe = load(tmp_path / "run" / "recipe.yaml")
    assert (recipe.train.size, recipe.train.epochs, recipe.train.lr, recipe.seed) == (32, 1, 3e-5, 4)


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_unreadable_picture_is_found_before_anything_is_trained(
    photos: Path, tmp_path: Path, network: str, split: str
) -> None:
    if split == "test":
        (photos / "val").rename(photos / "test")
    broken = sorted((photos / split / "red").iterdir())[0]
    broken.write_bytes(b"no picture")
    wish = Wish(str(photos), 1.0, (network,), QUICK)
    with pytest.raises(UserError, match=broken.name):
        train_pictures(wish, tmp_path / "run", started=time.monotonic())
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_signal_leaves_the_first_product_and_the_same_command_goes_on(
    tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise Stopped

    wish, folder = Wish(URI, 1.0, (network,), {**QUICK, "train.epochs": 1, "optim.lr": 3e-5}), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(own_pictures, "run_recipe", stop)
        with pytest.raises(Stopped):
            train_pictures(wish, folder, started=time.monotonic())
    assert fixres.load(folder).classes == ("0-disc", "1-square", "2-triangle")
    assert json.loads((folder / CHOICES).read_text())["seconds"] > 0
    train_pictures(wish, folder, started=time.monotonic(), resume=True)
    assert read_status(folder)["state"] == "done"
    again = train_pictures(wish, folder, started=time.monotonic(), resume=True)
    assert again.size == fixres.load(folder).preprocess.size


def test_a_run_goes_on_with_its_own_pictures_and_settings_only(
    chosen: tuple[Path, list[dict[str, Any]]], network: str
) -> None:
    folder, _ = chosen
    before = (folder / "recipe.yaml").read_bytes()
    settings = {**QUICK, "train.epochs": 2}
    for uri, other in ((f"{URI},seed=1", settings), (URI, {**settings, "seed": 5})):
        with pytest.raises(UserError, match="was started with another recipe"):
            train_pictures(Wish(uri, 1.0, (network,), other), folder, started=time.monotonic(), resume=True)
    assert (folder / "recipe.yaml").read_bytes() == before


def test_a_run_that_has_chosen_takes_no_other_networks(chosen: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = chosen
    wish = Wish(URI, 15.0, ("resnet18",), {**QUICK, "train.epochs": 2})
    with pytest.raises(UserError, match=r"has chosen already, among .*model\n  leave --models out"):
        train_pictures(wish, folder, started=time.monotonic(), resume=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train.batch_size": 1000}, "1000 .*larger than"),
        ({"train.size": 45}, "train.size 45: test_vit cannot take it\n  give 48, or name others with --models"),
    ],
)
def test_what_no_training_could_be_is_refused_before_anything_is_tried(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    sheet = Sheet(("a", "b"), Preprocess(64), 64, "all", "raw", (), {}, {}, {})
    save_product(tmp_path / "vit", build_model("test_vit", 2), sheet)
    with pytest.raises(UserError, match=said):
        choose_pictures(tmp_path / "run", str(tmp_path / "vit"), **settings)
    assert not (tmp_path / "run" / "model").exists()


def test_a_signal_while_speeds_are_measured_is_not_forgotten(
    tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = own_pictures.steps_rate

    def interrupted(*words: Any) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return rate(*words)

    with monkeypatch.context() as patch:
        patch.setattr(own_pictures, "steps_rate", interrupted)
        with pytest.raises(Stopped):
            choose_pictures(tmp_path / "run", network)
    assert fixres.load(tmp_path / "run").classes == ("0-disc", "1-square", "2-triangle")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_folder_that_holds_a_run_is_not_touched(chosen: tuple[Path, list[dict[str, Any]]], network: str) -> None:
    folder, _ = chosen
    before = (folder / CHOICES).read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        choose_pictures(folder, network)
    assert (folder / CHOICES).read_bytes() == before


def test_a_refit_is_of_the_runs_own_pictures_and_settings(chosen: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = chosen
    own = {**QUICK, "train.epochs": 2}
    require_own(folder, URI, own)
    for uri, settings in ((URI.replace("90", "99"), own), (URI, {**own, "seed": 5})):
        with pytest.raises(UserError, match="other pictures or settings"):
            require_own(folder, uri, settings)


def test_a_refit_trains_on_everything_and_says_whose_its_figures_are(
    chosen: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, _ = chosen
    refit(folder, tmp_path / "final")
    recipe = load(tmp_path / "final" / "recipe.yaml")
    assert recipe.data.train_on == "all"
    start = next(event for event in read_events(tmp_path / "final") if event["event"] == "start")
    assert start["num_images"] == {"train": 150}
    before, after = (
        json.loads((run / "model" / "config.json").read_text())["fixres"] for run in (folder, tmp_path / "final")
    )
    assert after["results"] == before["results"]
    assert after["figures_of"] == str(folder)
    assert after["test_size"] == before["test_size"]
    assert "those of the run whose choices it repeats" in (tmp_path / "final" / "model" / "README.md").read_text()
    remarks = measure_product(resolve.load(str(tmp_path / "final")), EvalRequest()).remarks
    assert any("was trained on these pictures, too" in remark for remark in remarks)
    assert not any("logged" in remark for remark in remarks)


@pytest.mark.parametrize(("step", "share"), [(10, 0), (9, 0.9), (1, 0.1)])
def test_a_refit_trains_as_far_as_the_run_did_whatever_the_number_of_pictures(
    chosen: tuple[Path, list[dict[str, Any]]], step: int, share: float
) -> None:
    folder, _ = chosen
    recipe, events = load(folder / "recipe.yaml"), read_events(folder)
    for event in events:
        if event["event"] == "candidates":
            for row in event["candidates"]:
                row["is_shipped"] = row["kind"] == "trained"
        if event.get("stage") == "train" and event["event"] == "plan":
            event["total_steps"] = 10
        if event.get("stage") == "train" and event["event"] == "kept":
            event["step"] = step
    everything = all_labelled(open_collection(recipe.data)).split("train")
    for num in range(recipe.train.batch_size, 151):
        again = refit_recipe(recipe, events, everything.take("train", np.arange(num))).train
        num_steps = again.epochs * (num // again.batch_size)
        assert again.stop_step == pytest.approx(share * num_steps, abs=max(0.5, 1 - share * num_steps))
        assert again.stop_step <= num_steps


def test_a_network_without_one_linear_head_is_refused_before_anything_runs(tmp_path: Path) -> None:
    wish = Wish(URI, 1.0, ("timm:crossvit_tiny_240.in1k",), QUICK)
    with pytest.raises(UserError, match="more than one linear layer: 2 classifiers"):
        train_pictures(wish, tmp_path / "run", started=time.monotonic())
