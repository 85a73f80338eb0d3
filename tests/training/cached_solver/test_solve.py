"""The cached solver: its statistics, features and head are the network's own."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fixres.config.recipe import Recipe
from fixres.data.transforms import evaluation_crop, normalise
from fixres.errors import UserError
from fixres.evaluation.evaluate import evaluate, network_views
from fixres.io.tensors import changed_tensors, copy_state
from fixres.models.build import build_model
from fixres.models.moves import make_plan
from fixres.models.split_trunk import require_solvable
from fixres.resolution import Preprocess
from fixres.training.cached_solver import solve
from fixres.training.freeze import set_train_mode
from fixres.training.run import run_recipe
from tests.support.solver_problems import DATA, problem, warm


def all_images(split: Any, preprocess: Preprocess) -> Tensor:
    images = torch.stack([evaluation_crop(split.read(i), preprocess) for i in range(len(split))])
    return normalise(images, preprocess.mean, preprocess.std)


@pytest.mark.parametrize("cache_gib", [2.0, 0.0])
def test_statistics_are_those_of_the_whole_split_whether_or_not_the_front_is_kept(
    tmp_path: Path, cache_gib: float
) -> None:
    model = warm()
    plan = make_plan(model, "head+stats", 48)
    # One batch of everything with momentum 1 is the set's own statistic.
    by_batch = warm()
    set_train_mode(by_batch, plan)
    for name in plan.live_norms:
        by_batch.get_submodule(name).momentum = 1.0
    with torch.no_grad():
        by_batch(all_images(DATA.split("train"), Preprocess(48)))
    found = solve.solve(problem(model, tmp_path, "stats", cache_gib=cache_gib))
    wanted, own = by_batch.state_dict(), model.state_dict()
    for name in plan.statistics:
        if "num_batches" not in name:
            torch.testing.assert_close(own[name], wanted[name], rtol=1e-5, atol=1e-6)
    assert found.chosen is None
    moved = {name for name in plan.statistics if "num_batches" not in name}
    assert changed_tensors(copy_state(warm()), copy_state(model)) == moved


@pytest.mark.usefixtures("few_decays")
def test_keeping_the_front_saves_a_pass_and_gives_the_same(tmp_path: Path) -> None:
    kept, rerun = warm(), warm()
    first = solve.solve(problem(kept, tmp_path / "a"))
    second = solve.solve(problem(rerun, tmp_path / "b", cache_gib=0.0))
    assert (first.num_passes, second.num_passes) == (2, 3)
    for name, tensor in kept.state_dict().items():
        assert torch.equal(tensor, rerun.state_dict()[name]), name


class Untraceable(nn.Module):
    """A network whose path depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build_model("test_resnet", 3)
        self.get_classifier = lambda: self.net.fc
        self.pretrained_cfg = self.net.pretrained_cfg

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x if x.sum() > -math.inf else -x)
        return result


@pytest.mark.usefixtures("few_decays")
def test_a_network_that_cannot_be_recorded_runs_as_it_is(tmp_path: Path) -> None:
    model = Untraceable().eval()
    found = solve.solve(problem(model, tmp_path))
    assert found.path == "hooked"
    assert found.num_passes == 3


@pytest.mark.parametrize(
    ("name", "size", "text"),
    [
        ("levit_128s", 224, r"2 classifiers \(head, head_dist\)"),
        ("deit_tiny_distilled_patch16_224", 224, r"2 classifiers \(head, head_dist\)"),
        ("convformer_s18", 64, "head.fc is no linear layer"),
    ],
)
def test_other_heads_are_refused_with_what_suits(name: str, size: int, text: str) -> None:
    model = build_model(name, 3)
    with pytest.raises(UserError, match=rf"{text}\n  use solver: sgd"):
        require_solvable(model, make_plan(model, "head", size), size)


def test_the_seconds_of_an_earlier_search_count_as_such(tmp_path: Path) -> None:
    first = solve.solve(problem(warm(), tmp_path))
    again = solve.solve(problem(warm(), tmp_path))
    searching = first.seconds - first.feature_seconds
    assert again.seconds - again.feature_seconds >= 0.9 * searching
    assert again.seconds > again.feature_seconds


@pytest.mark.usefixtures("few_decays")
def test_evaluation_and_solver_see_the_same_pictures(tmp_path: Path) -> None:
    model = warm()
    task = problem(model, tmp_path, "head")
    found = solve.solve(task)
    measured = evaluate(network_views(model, [task.preprocess]), task.select, task.runtime, task.reading)
    assert found.chosen is not None
    assert measured.results[0]["top1"] == found.chosen.top1


@pytest.mark.system
def test_two_processes_write_the_bytes_of_one(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    run_recipe(make_recipe(data={"uri": "synthetic:classes=3,images=700,size=48"}), tmp_path / "base")
    fix = ["-m", "fixres", "fix", str(tmp_path / "base"), "--size", "48", "--sizes", "40,64", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    for words in ([*fix, str(tmp_path / "one")], [*launch, *fix, str(tmp_path / "two")]):
        subprocess.run([sys.executable, *words], check=True, env=environment, capture_output=True)
    one, two = (tmp_path / name / "model" for name in ("one", "two"))
    files = ["model.safetensors", "before_fix.safetensors", "sizes/040.safetensors", "sizes/064.safetensors"]
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)
    kept, other = (json.loads((model / "config.json").read_text())["fixres"] for model in (one, two))
    assert {key: kept[key] for key in ("promises", "sizes")} == {key: other[key] for key in ("promises", "sizes")}
