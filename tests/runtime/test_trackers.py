"""Trackers: what TensorBoard can read back, several stages on one axis, resuming, and failures that stop nothing."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fixres.config.loading import load, to_yaml, validate
from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.evaluation.metrics import METRICS
from fixres.runtime import trackers
from fixres.runtime.run_folder import RunLog, read_events
from tests.support.tensorboard_files import read_back

RESULT = {"size": 32, "top1": 50.0, "top5": None, "loss": 1.5, "ece": 0.25}

CURVES = tuple(METRICS)


def points(found: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(point.step, round(point.value, 4)) for point in found.Scalars(tag)]


def train(log: RunLog, stage: str, index: int, step: int, loss: float) -> None:
    where = {"stage": stage, "stage_index": index, "step": step, "epoch": 1}
    log.event("train", **where, loss=loss, lr=0.1, images_per_second=20.0, data_wait_ratio=0.5)


def test_tensorboard_has_every_number_on_one_axis(tmp_path: Path) -> None:
    log = RunLog(tmp_path, metrics=CURVES)
    log.settings({"train.lr": 0.1})
    log.event("plan", stage="train", stage_index=0, total_steps=20)
    train(log, "train", 0, 10, 2.0)
    where = {"stage": "train", "stage_index": 0, "step": 20, "epoch": 1}
    for weights, top1 in (("raw", 50.0), ("ema", 75.0)):
        results = [RESULT | {"top1": top1, "top5": 90.0}, RESULT | {"size": 64}]
        log.event("eval", **where, split="val", weights=weights, results=results)
    log.event("epoch", stage="train", stage_index=0, step=20, epoch=1, fps=123.0, data_wait_ratio=0.1, seconds=1.0)
    log.event("plan", stage="fix", stage_index=1, total_steps=5)
    train(log, "fix", 1, 5, 1.0)
    log.event("sweep", split="val", label="fixed", results=[RESULT])
    log.close()
    found = read_back(tmp_path)
    assert points(found, "train/loss") == [(10, 2.0)]
    assert points(found, "fix/loss") == [(25, 1.0)]
    assert points(found, "fix/lr") == [(25, 0.1)]
    assert points(found, "train/images_per_second") == [(10, 20.0)]
    assert points(found, "train/data_wait_ratio") == [(10, 0.5)]
    assert points(found, "train/fps") == [(20, 123.0)]
    assert points(found, "train/val/raw/top1@32") == [(20, 50.0)]
    assert points(found, "train/val/ema/top1@32") == [(20, 75.0)]
    assert points(found, "train/val/ema/top5@32") == [(20, 90.0)]
    assert points(found, "train/val/ema/top1@64") == [(20, 50.0)]
    assert "train/val/ema/top5@64" not in found.Tags()["scalars"]
    assert points(found, "sweep/val/fixed/top1@32") == [(25, 50.0)]
    # Importing torch alone takes more than 100 MiB.
    assert 100 < found.Scalars("memory/process_peak_mib")[0].value < 100_000
    assert b"train.lr" in found.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0]
    assert [e["total_step"] for e in read_events(tmp_path) if "step" in e] == [10, 20, 20, 20, 25]


def test_a_resumed_run_counts_on_and_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    log = RunLog(tmp_path, metrics=CURVES)
    log.event("plan", stage="train", stage_index=0, total_steps=20)
    train(log, "train", 0, 20, 2.0)
    log.event("plan", stage="fix", stage_index=1, total_steps=10)
    train(log, "fix", 1, 5, 1.0)
    kept = log.size()
    train(log, "fix", 1, 6, 9.0)
    train(log, "fix", 1, 7, 9.0)
    log.close()
    log = RunLog(tmp_path, metrics=CURVES)
    log.truncate(kept)
    train(log, "fix", 1, 6, 0.5)
    log.close()
    assert points(read_back(tmp_path), "fix/loss") == [(25, 1.0), (26, 0.5)]
    assert points(read_back(tmp_path), "train/loss") == [(20, 2.0)]
    assert [e["total_step"] for e in read_events(tmp_path) if e["event"] == "train"] == [20, 25, 26]


class Broken:
    """A tracker's class, as Accelerate's are, that fails in one of its calls."""

    requires_logging_directory = False
    fails_in = ""
    calls: list[str]

    def __init__(self, *_: Any, **__: Any) -> None:
        Broken.calls = []

    def _call(self, name: str) -> None:
        Broken.calls.append(name)
        if name == Broken.fails_in:
            raise RuntimeError("the server is down")

    def start(self) -> None:
        self._call("start")

    def store_init_configuration(self, _: Any) -> None:
        self._call("settings")

    def log(self, values: dict[str, Any], step: int) -> None:
        assert step == 1
        assert all(re.fullmatch(r"[\w./ -]+", name) for name in values), "MLflow refuses such names"
        self._call("log")

    def finish(self) -> None:
        self._call("finish")


CALLS = ["start", "settings", "log", "log", "finish"]


@pytest.mark.parametrize("fails_in", ["start", "settings", "log", "finish"])
def test_a_failing_tracker_warns_once_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_in: str
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    sys.modules["mlflow"].__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setattr("accelerate.tracking.LOGGER_TYPE_TO_CLASS", {"mlflow": Broken})
    monkeypatch.setattr(Broken, "fails_in", fails_in)
    told: list[dict[str, Any]] = []
    log = RunLog(tmp_path, ["mlflow", "tensorboard"], listeners=(told.append,), metrics=CURVES)
    log.settings({"lr": 0.1, "name": None})
    train(log, "train", 0, 1, 1.0)
    log.event("sweep", split="val", label="head+stats", results=[RESULT])
    log.close()
    warnings = [event["text"] for event in told if event["event"] == "warning"]
    assert warnings == ["tracker mlflow failed and is left out for the rest of this run: the server is down"]
    assert Broken.calls == CALLS[: CALLS.index(fails_in) + 1]
    assert points(read_back(tmp_path), "sweep/val/head+stats/top1@32") == [(1, 50.0)]
    assert [event["event"] for event in read_events(tmp_path)] == ["train", "sweep"]


def test_without_listeners_the_warning_is_pythons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "TensorBoard", lambda *_: 1 / 0)
    log = RunLog(tmp_path, metrics=CURVES)
    with pytest.warns(UserWarning, match="tracker tensorboard failed"):
        train(log, "train", 0, 1, 1.0)


@pytest.mark.parametrize("name", ["trackio", "wandb", "mlflow"])
def test_a_missing_tracker_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'fixres\[track\]'"):
        RunLog(tmp_path / "run", ["tensorboard", name])
    assert not (tmp_path / "run").exists()


def test_none_starts_no_tracker(tmp_path: Path) -> None:
    log = RunLog(tmp_path, "none")
    train(log, "train", 0, 1, 1.0)
    log.picture("a", np.zeros((2, 2, 3), np.uint8), 1)
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def recipe(tracker: Any) -> Recipe:
    return validate({"data": {"uri": "x"}, "output": {"tracker": tracker}})


def test_a_recipe_names_one_tracker_or_several(tmp_path: Path) -> None:
    assert recipe("none").output.tracker == "none"
    several = recipe(["tensorboard", "wandb"])
    assert several.output.tracker == ("tensorboard", "wandb")
    (tmp_path / "recipe.yaml").write_text(to_yaml(several))
    assert load(tmp_path / "recipe.yaml") == several
    with pytest.raises(UserError, match=r"output.tracker: .*'wnadb'.*did you mean 'wandb'"):
        recipe("wnadb")
