"""Several processes do what one does: the same pictures, losses, counts and files, and they stop together."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fixres.cli.console import Console
from fixres.config.recipe import Data, Recipe
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import open_collection
from fixres.errors import Stopped, UserError
from fixres.evaluation.evaluate import Evaluation, Reading, evaluate, network_views
from fixres.io.safe_load import read_checkpoint
from fixres.models.build import build_model
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime
from fixres.runtime.run_folder import read_events
from fixres.training.loop import StageTrainer
from fixres.training.run import run_recipe
from tests.support.same_run import assert_same_run, weights
from tests.support.several import run_processes

Make = Callable[..., Recipe]


def run(recipe: Recipe, folder: Path, **options: Any) -> None:
    run_recipe(recipe, folder, **options)


def losses(folder: Path) -> list[float]:
    return [event["loss"] for event in read_events(folder) if event["event"] == "train"]


def measure(batch_size: int) -> Evaluation:
    collection = open_collection(Data(uri="synthetic:classes=3,images=70,size=40"))
    torch.manual_seed(0)
    model = build_model("test_resnet", 3)
    runtime = Runtime(RuntimeSettings(device="cpu", threads=1))
    sizes = [Preprocess(32), Preprocess(48)]
    return evaluate(network_views(runtime.place(model), sizes), collection.split("train"), runtime, Reading(batch_size))


@pytest.mark.parametrize(("count", "batch_size"), [(2, 16), (3, 64)])
def test_counts_are_equal_for_any_number_of_processes(count: int, batch_size: int) -> None:
    whole = measure(batch_size)
    parts = run_processes(count, measure, batch_size)
    assert whole.num_images == 70
    for part in parts:
        speed = [{**r, "images_per_second": 0} for r in part.results]
        assert speed == [{**r, "images_per_second": 0} for r in whole.results]
        for name in ("indices", "labels", "predictions", "probabilities", "losses"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)), name


@pytest.mark.parametrize(
    ("name", "micro_batch"), [("test_resnet", 8), ("test_convnext", "auto")], ids=["norms per part", "no batch norm"]
)
def test_two_processes_lose_what_one_loses(make_recipe: Make, tmp_path: Path, name: str, micro_batch: Any) -> None:
    def recipe(**runtime: Any) -> Recipe:
        return make_recipe(
            model={"name": name},
            augment={"mixup": 0.2 if micro_batch == 8 else 0, "policy": "jitter"},
            train={"size": 32, "epochs": 4, "batch_size": 16, "repeats": 3, "lr": 0.01},
            output={"log_every_steps": 1},
            runtime=runtime,
        )

    run(recipe(micro_batch=micro_batch), tmp_path / "one")
    assert run_processes(2, run, recipe(), tmp_path / "two") == [None, None]
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 12
    assert one == pytest.approx(two, abs=1e-5)
    assert max(one) - min(one) > 0.01


def stopping(recipe: Recipe, folder: Path, step: int, how: str) -> None:
    """Train and be stopped when `step` updates are done, by a signal to one process only or by the death of all."""
    original, done = StageTrainer.step, 0

    def counted(*args: Any) -> float:
        nonlocal done
        value = original(*args)
        done += 1
        is_last = int(os.environ.get("RANK", "0")) + 1 == int(os.environ.get("WORLD_SIZE", "1"))
        if done == step and how == "SIGTERM" and is_last:
            os.kill(os.getpid(), signal.SIGTERM)
        elif done == step and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    StageTrainer.step = counted
    try:
        run_recipe(recipe, folder)
    finally:
        StageTrainer.step = original


@pytest.fixture
def eventful(make_recipe: Make) -> Recipe:
    """Nine steps with everything that has a state: average, mixup, dropout, micro-batches, repeated pictures."""
    return make_recipe(
        ema={"enabled": True, "decay": 0.9},
        augment={"mixup": 0.2, "policy": "jitter"},
        model={"name": "test_resnet", "kwargs": {"drop_rate": 0.3}},
        train={"size": 32, "epochs": 2, "batch_size": 16, "repeats": 3},
        fix={"size": 64, "epochs": 1},
        output={"save_every_steps": 2, "log_every_steps": 2},
        runtime={"micro_batch": 4},
    )


@pytest.mark.parametrize(
    "step", [step if step in (2, 4, 8) else pytest.param(step, marks=pytest.mark.system) for step in range(1, 10)]
)
@pytest.mark.parametrize("how", ["SIGTERM", "kill"])
def test_one_process_stopped_after_any_step_goes_on_as_if_it_had_not(
    eventful: Recipe, whole: Path, tmp_path: Path, step: int, how: str
) -> None:
    found = run_processes(1, stopping, eventful, tmp_path / "cut", step, how)
    _check_stopped(found, tmp_path / "cut", how)
    run(eventful, tmp_path / "cut", resume=True)
    assert_same_run(whole, tmp_path / "cut")


@pytest.mark.parametrize(
    ("step", "how"),
    [
        *(pytest.param(step, "SIGTERM", marks=pytest.mark.system) for step in (1, 3, 4, 6, 7, 8, 9)),
        *(pytest.param(step, "kill", marks=pytest.mark.system) for step in (2, 8)),
        (2, "SIGTERM"),
        (5, "kill"),
    ],
)
def test_two_processes_stopped_go_on_as_if_they_had_not(
    eventful: Recipe, whole_of_two: Path, tmp_path: Path, step: int, how: str
) -> None:
    _check_stopped(run_processes(2, stopping, eventful, tmp_path / "cut", step, how), tmp_path / "cut", how)
    run_processes(2, run_resumed, eventful, tmp_path / "cut")
    assert_same_run(whole_of_two, tmp_path / "cut")
    last = [read_checkpoint(folder / "checkpoints" / "last.pt") for folder in (whole_of_two, tmp_path / "cut")]
    for name, tensor in last[0]["model"].items():
        assert torch.equal(tensor, last[1]["model"][name]), name


def run_resumed(recipe: Recipe, folder: Path) -> None:
    run_recipe(recipe, folder, resume=True)


def _check_stopped(found: list[Any], folder: Path, how: str) -> None:
    status = json.loads((folder / "status.json").read_text())
    if how == "SIGTERM":
        assert all(isinstance(result, Stopped) for result in found), found
        assert (status["state"], status["exit_code"]) == ("stopped", 75)
    else:
        assert found == [None] * len(found)
        assert status["state"] == "running"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


@pytest.fixture
def whole(eventful: Recipe, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "one" not in folders:
        folders["one"] = tmp_path_factory.mktemp("whole") / "run"
        run(eventful, folders["one"])
    return folders["one"]


@pytest.fixture
def whole_of_two(eventful: Recipe, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "two" not in folders:
        folders["two"] = tmp_path_factory.mktemp("whole") / "run"
        assert run_processes(2, run, eventful, folders["two"]) == [None, None]
    return folders["two"]


def test_two_processes_write_one_run_and_ship_averaged_statistics(eventful: Recipe, whole_of_two: Path) -> None:
    names = ("start-1", "last")
    start, last = (read_checkpoint(whole_of_two / "checkpoints" / f"{name}.pt") for name in names)
    assert len(last["ranks"]) == 2
    assert start["weights"].keys() == last["model"].keys()
    events = [event["event"] for event in read_events(whole_of_two)]
    assert events.count("begin") == events.count("start") == events.count("done") == 1
    assert json.loads((whole_of_two / "status.json").read_text())["state"] == "done"


def own_statistics(recipe: Recipe, folder: Path) -> dict[str, torch.Tensor]:
    """Return this process's statistics when it first measures, and what the measured network holds."""
    seen: dict[str, Any] = {}
    original = Runtime.averaged

    def spied(self: Runtime, *networks: Any) -> Any:
        seen.setdefault("own", self.own_statistics(networks[0]))
        return original(self, *networks)

    Runtime.averaged = spied  # type: ignore[method-assign]
    run_recipe(recipe, folder)
    seen["shipped"] = weights(folder) if os.environ["RANK"] == "0" else {}
    return seen


def test_statistics_are_the_mean_over_processes(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(train={"size": 32, "epochs": 1, "batch_size": 16})
    first, second = run_processes(2, own_statistics, recipe, tmp_path / "r")
    name = "layer4.0.bn2.running_var"
    assert not torch.equal(first["own"][name], second["own"][name])
    mean = (first["own"][name].double() + second["own"][name].double()) / 2
    assert torch.equal(first["shipped"][name], mean.float())


def late(recipe: Recipe, folder: Path) -> None:
    """Train with a second process that hangs in its loader at the third step."""
    original = StageTrainer._batches

    def slow(*args: Any) -> Iterator[Any]:
        for number, batch in enumerate(original(*args)):
            if number == 2 and os.environ["RANK"] == "1":
                time.sleep(60)
            yield batch

    StageTrainer._batches = slow
    run_recipe(recipe, folder)


@pytest.mark.system
def test_a_process_that_does_not_come_is_named_with_its_step(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(runtime={"wait_seconds": 4})
    found = run_processes(2, late, recipe, tmp_path / "r", seconds=30)
    assert isinstance(found[0], UserError)
    assert "process 1 (last seen " in str(found[0])
    assert json.loads((tmp_path / "r" / "status.json").read_text())["state"] == "failed"


def losing_main(recipe: Recipe, folder: Path) -> None:
    """Train until the main process is killed after the third step."""
    original, done = StageTrainer.step, 0

    def counted(*args: Any) -> float:
        nonlocal done
        done += 1
        if done == 4 and os.environ["RANK"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)

    StageTrainer.step = counted
    run_recipe(recipe, folder)


def test_the_death_of_the_main_process_is_told_by_another(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(output={"log_every_steps": 1})
    found = run_processes(2, losing_main, recipe, tmp_path / "r")
    assert found[0] is None
    assert isinstance(found[1], UserError)
    assert json.loads((tmp_path / "r" / "status.json").read_text()) == {"state": "failed", "exit_code": 2, "step": 3}
    run_recipe(recipe, tmp_path / "r", resume=True)
    assert json.loads((tmp_path / "r" / "status.json").read_text())["state"] == "done"


def test_a_batch_that_cannot_be_shared_names_those_that_can(make_recipe: Make, tmp_path: Path) -> None:
    found = run_processes(3, run, make_recipe(), tmp_path / "r")
    for error in found:
        assert isinstance(error, UserError)
        assert "train.batch_size 16 cannot be shared by 3 processes\n  use 15 or 18" in str(error)
    assert not (tmp_path / "r").exists()


def with_damage(recipe: Recipe, folder: Path, broken: Path) -> None:
    if os.environ["RANK"] == "0":
        broken.write_bytes(b"no picture")
    else:
        while broken.read_bytes() != b"no picture":
            time.sleep(0.01)
    run_recipe(recipe, folder)


def test_a_picture_only_one_process_cannot_read_stops_all_with_one_message(
    make_recipe: Make, photos: Path, tmp_path: Path
) -> None:
    broken = photos / "train" / "red" / "03.jpg"
    data = {"uri": f"folder:{photos}", "holdout": 0.1}
    recipe = make_recipe(data=data, train={"size": 32, "epochs": 1, "batch_size": 8})
    found = run_processes(2, with_damage, recipe, tmp_path / "r", broken)
    assert all(isinstance(error, UserError) and "03.jpg" in str(error) for error in found), found


def run_watched(recipe: Recipe, folder: Path) -> None:
    """Train with a person watching: what is printed about an event must not fail either."""
    run_recipe(recipe, folder, listeners=[Console()])


def test_pictures_that_are_left_out_are_told_once_whichever_process_meets_them(
    make_recipe: Make, photos: Path, tmp_path: Path
) -> None:
    broken = photos / "train" / "red" / "03.jpg"
    broken.write_bytes(b"no picture")
    data = {"uri": f"folder:{photos}", "holdout": 0.1, "on_bad_image": "skip"}
    recipe = make_recipe(data=data, train={"size": 32, "epochs": 6, "batch_size": 10})
    assert run_processes(2, run_watched, recipe, tmp_path / "r") == [None, None]
    told = [event for event in read_events(tmp_path / "r") if event["event"] == "bad_images"]
    assert [(event["num_bad_images"], len(event["paths"])) for event in told] == [(1, 1)]


def test_pairs_for_mixup_are_not_torn_apart_by_processes(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(augment={"mixup": 0.2}, train={"size": 32, "epochs": 1, "batch_size": 18})
    for error in run_processes(2, run, recipe, tmp_path / "r"):
        assert "train.batch_size 18 cannot be shared by 2 processes in pairs" in str(error)
        assert "use 16 or 20" in str(error)
