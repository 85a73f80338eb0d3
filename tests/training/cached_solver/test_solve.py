"""The cached solver: its statistics, features and head are the network's own; kills cost no finished pass."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.config.recipe import Data, Recipe
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.config.rules import problems
from fixres.data.collections import open_collection
from fixres.data.transforms import normalise
from fixres.errors import Stopped, UserError
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.evaluate import Reading, evaluate
from fixres.evaluation.measure import measure_product
from fixres.experiments.cost import dry_run
from fixres.io.tensors import changed_tensors, copy_state
from fixres.models.anatomy import last_norms
from fixres.models.build import build_model, reset_head
from fixres.models.moves import make_plan
from fixres.models.split_trunk import cut_network, head_logits
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime
from fixres.runtime.run_folder import read_events
from fixres.training.cached_solver import solve, views
from fixres.training.cached_solver import trunk as trunk_module
from fixres.training.cached_solver.feature_cache import Cache
from fixres.training.cached_solver.logistic_head import Head, Rows, search
from fixres.training.cached_solver.norm_statistics import merge, moments_of
from fixres.training.cached_solver.solve import Problem, check
from fixres.training.freeze import set_train_mode
from fixres.training.run import run_recipe
from fixres.training.stage_plan import describe_stage

Make = Callable[..., Recipe]
DATA = open_collection(Data(uri="synthetic:classes=3,images=60,size=56"))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk_module, "_CHUNK", 16)


def warm(name: str = "test_resnet", size: int = 48) -> nn.Module:
    """Return a network whose statistics are not those it was made with."""
    torch.manual_seed(0)
    model = build_model(name, 3)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, size, size))
    return model.eval()


def problem(model: nn.Module, cache: Path, moves: str = "auto", **changes: Any) -> Problem:
    settings = {
        "plan": make_plan(model, moves, 48),
        "train": DATA.split("train"),
        "select": DATA.split("val"),
        "preprocess": Preprocess(48),
        "runtime": Runtime(RuntimeSettings(device="cpu", threads=1)),
        "reading": Reading(8),
        "cache": cache,
    }
    return Problem(model, **{**settings, **changes})


def all_images(split: Any, preprocess: Preprocess) -> Tensor:
    images = torch.stack([views_of(split.read(i), preprocess) for i in range(len(split))])
    return normalise(images, preprocess.mean, preprocess.std)


def views_of(picture: Any, preprocess: Preprocess) -> Tensor:
    from fixres.data.transforms import evaluation_crop

    return evaluation_crop(picture, preprocess)


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


def test_keeping_the_front_saves_a_pass_and_gives_the_same(tmp_path: Path) -> None:
    kept, rerun = warm(), warm()
    first = solve.solve(problem(kept, tmp_path / "a"))
    second = solve.solve(problem(rerun, tmp_path / "b", cache_gib=0.0))
    assert (first.num_passes, second.num_passes) == (2, 3)
    for name, tensor in kept.state_dict().items():
        assert torch.equal(tensor, rerun.state_dict()[name]), name


FAMILIES = ["test_resnet", "test_efficientnet", "test_vit", "test_convnext", "test_byobnet", "test_nfnet"]


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_the_networks_own(name: str) -> None:
    size = 160 if name == "test_vit" else 64
    model = warm(name, size)
    plan = make_plan(model, "auto", size)
    images = torch.randn(8, 3, size, size)
    with torch.inference_mode():
        cut = cut_network(model, plan.live_norms, images)
        assert cut.path == "folded"
        other = torch.randn(8, 3, size, size)
        logits = head_logits(model, cut.head, cut.features(other))
        wanted = model(other)
    assert float((logits - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


def test_new_statistics_reach_a_network_that_is_cut_already() -> None:
    model = warm()
    norms = last_norms(model, 48)
    images = torch.randn(4, 3, 48, 48)
    with torch.inference_mode():
        cut = cut_network(model, norms, images)
    with torch.no_grad():
        for name in norms:
            model.get_submodule(name).running_mean.add_(1.0)
    with torch.inference_mode():
        logits = head_logits(model, cut.head, cut.features(images))
        torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-4)


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
        check(model, make_plan(model, "head", size), size)


def test_a_fix_of_another_head_is_trained_and_says_why(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(
        model={"name": "levit_128s", "weights": "none"},
        train={"size": 224, "epochs": 1, "batch_size": 8},
        fix={"size": 224},
        evaluation={"sizes": [224]},
    )
    assert recipe.fix.solver == "auto"
    note = "the cached solver does not suit 'levit_128s': 2 classifiers (head, head_dist); the stage is trained by sgd"
    assert f"note: {note}" in dry_run(recipe)
    recipe = recipe.model_copy(update={"fix": recipe.fix.model_copy(update={"epochs": 1})})
    run_recipe(recipe, tmp_path / "r")
    events = read_events(tmp_path / "r")
    assert note in [event.get("text") for event in events]
    fix = next(event for event in events if event["event"] == "fix")
    assert fix["solver"] == "sgd"
    assert fix["plan"]["num_tensors"] > 0
    asked = recipe.model_copy(update={"fix": recipe.fix.model_copy(update={"solver": "cached"})})
    with pytest.raises(UserError, match=r"does not suit 'levit_128s'.*\n  use solver: sgd"):
        run_recipe(asked, tmp_path / "asked")


def test_another_loss_is_trained_not_solved(make_recipe: Make) -> None:
    recipe = make_recipe(fix={"size": 48}, loss={"name": "bce"})
    assert recipe.fix.solver == "auto"
    assert "note: the cached solver has no loss bce; the stage is trained by sgd" in dry_run(recipe)
    asked = make_recipe(fix={"size": 48, "solver": "cached"}, loss={"name": "bce"})
    assert [str(p) for p in problems(asked)] == ["fix.solver: the cached solver has no loss bce; use solver sgd"]


def test_the_model_scores_in_eval_what_it_scored_in_the_solver(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(fix={"size": 48})
    assert (recipe.fix.solver, recipe.fix.views) == ("auto", 2)
    run_recipe(recipe, tmp_path / "r")
    events = read_events(tmp_path / "r")
    solved = next(e for e in events if e["event"] == "solved")
    chosen = next(c for c in solved["candidates"] if c["decay"] == solved["decay"])
    answer, _, _ = measure_product(load(str(tmp_path / "r")), EvalRequest(split="val", workers=0))
    assert answer["results"][0]["top1"] == chosen["top1"]
    assert answer["results"][0]["loss"] == pytest.approx(chosen["loss"], rel=1e-4)
    fix = next(e for e in events if e["event"] == "fix")
    assert fix["solver"] == "cached"
    assert 0 < fix["solver_seconds"] < 60
    assert not (tmp_path / "r" / "cache").exists()


class Killed(BaseException):
    """Stands for a kill: nothing in the program catches it."""


def solved_state(cache: Path) -> dict[str, Tensor]:
    model = warm()
    solve.solve(problem(model, cache))
    return copy_state(model)


def count_batches(patch: pytest.MonkeyPatch, run: Callable[[], object], stop_after: int | None = None) -> list[int]:
    """Return the batches that are read by `run`, which is killed after some."""
    seen: list[int] = []
    read = trunk_module.evaluation_batches

    def counted(split: Any, *rest: Any, **kwargs: Any) -> Any:
        for batch in read(split, *rest, **kwargs):
            if len(seen) == stop_after:
                raise Killed
            seen.append(len(batch[1]))
            yield batch

    patch.setattr(trunk_module, "evaluation_batches", counted)
    if stop_after is None:
        run()
    else:
        with pytest.raises(Killed):
            run()
    return seen


def test_a_kill_at_any_batch_costs_no_finished_chunk_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        total = len(count_batches(patch, lambda: solved_state(tmp_path / "whole")))
    whole = solved_state(tmp_path / "whole")
    for k in range(1, total, 3):
        with monkeypatch.context() as patch:
            stopped = count_batches(patch, lambda k=k: solved_state(tmp_path / str(k)), stop_after=k)
        with monkeypatch.context() as patch:
            again = count_batches(patch, lambda k=k: solved_state(tmp_path / str(k)))
        # Read once more: the batch that faster paths are checked with, twice, and a chunk of two that was cut short.
        assert len(stopped) + len(again) <= total + 2 + 1
        assert not changed_tensors(whole, solved_state(tmp_path / str(k)))


def test_a_signal_stops_between_batches_and_a_rerun_finds_the_same(tmp_path: Path) -> None:
    whole = solved_state(tmp_path / "whole")
    model = warm()
    task = problem(model, tmp_path / "stopped")
    calls: list[int] = []

    def progress(what: str, done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 3:
            task.runtime.stop.received = "SIGTERM"

    stopped = Problem(**{**vars(task), "progress": progress})
    with pytest.raises(Stopped):
        solve.solve(stopped)
    assert not changed_tensors(whole, solved_state(tmp_path / "stopped"))


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "a weight": lambda p: (
        p["model"].conv1.get_submodule("0").weight.data.add_(1e-3)
        if isinstance(p["model"].conv1, nn.Sequential)
        else p["model"].conv1.weight.data.add_(1e-3)
    ),
    "the size": lambda p: p.update(preprocess=Preprocess(64)),
    "the crop": lambda p: p.update(preprocess=Preprocess(48, crop_ratio=1.0)),
    "the pictures": lambda p: p.update(train=p["train"].take("train", np.arange(30))),
    "the labels": lambda p: p.update(train=DATA.split("test").take("train", np.arange(10))),
    "what moves": lambda p: p.update(plan=make_plan(p["model"], "head", 48)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_input_never_uses_old_features(tmp_path: Path, what: str) -> None:
    solve.solve(problem(warm(), tmp_path))
    (first,) = tmp_path.iterdir()
    task = vars(problem(warm(), tmp_path))
    CHANGES[what](task)
    solve.solve(Problem(**task))
    (second,) = tmp_path.iterdir()
    assert first != second


def test_a_replaced_picture_never_meets_old_features(tmp_path: Path, photos: Path) -> None:
    def solve() -> dict[str, Tensor]:
        collection = open_collection(Data(uri=f"folder:{photos}"))
        model = warm()
        reset_head(model, 2)
        task = problem(model, tmp_path / "cache", train=collection.split("train"), select=collection.split("val"))
        solve.solve(task)
        return copy_state(model)

    before = solve()
    assert not changed_tensors(before, solve())
    victim = photos / "train" / "red" / "00.jpg"
    content = victim.read_bytes()
    victim.write_bytes((photos / "train" / "blue" / "00.jpg").read_bytes())
    assert changed_tensors(before, solve())
    victim.write_bytes(content)
    assert not changed_tensors(before, solve())


def test_another_objective_is_solved_anew_on_the_same_features(tmp_path: Path) -> None:
    solve.solve(problem(warm(), tmp_path / "shared"))
    smoothed, fresh = warm(), warm()
    (folder,) = (tmp_path / "shared").iterdir()
    features = {path: path.stat().st_mtime_ns for path in folder.glob("train-*")}
    assert features
    for changes in ({"label_smoothing": 0.4}, {"class_weights": (0.2, 1.0, 1.8)}):
        smoothed, fresh = warm(), warm()
        solve.solve(problem(smoothed, tmp_path / "shared", **changes))
        solve.solve(problem(fresh, tmp_path / "fresh", **changes))
        assert not changed_tensors(copy_state(smoothed), copy_state(fresh))
    assert features == {path: path.stat().st_mtime_ns for path in folder.glob("train-*")}


@pytest.mark.parametrize("cache_gib", [2.0, 0.0])
def test_more_views_than_the_crop_leaves_room_for_are_those_there_are(tmp_path: Path, cache_gib: float) -> None:
    whole = Preprocess(48, crop_ratio=1.0)
    found = solve.solve(problem(warm(), tmp_path, preprocess=whole, num_views=4, cache_gib=cache_gib))
    assert found.num_views == 2


def test_the_seconds_of_an_earlier_search_count_as_such(tmp_path: Path) -> None:
    first = solve.solve(problem(warm(), tmp_path))
    again = solve.solve(problem(warm(), tmp_path))
    searching = first.seconds - first.feature_seconds
    assert again.seconds - again.feature_seconds >= 0.9 * searching
    assert again.seconds > again.feature_seconds


def test_a_network_whose_outputs_are_not_finite_is_refused_as_such(tmp_path: Path, make_recipe: Make) -> None:
    run_recipe(make_recipe(train={"epochs": 1}), tmp_path / "run")
    product = load(tmp_path / "run")
    with torch.no_grad():
        next(product.model.parameters()).fill_(math.nan)
    for solving in ("auto", "cached"):
        with pytest.raises(UserError, match="not finite"):
            describe_stage(make_recipe(fix={"size": 48, "solver": solving}), DATA, product.model, 1, 48)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 10_000))
def test_moments_do_not_depend_on_how_the_values_are_divided(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = 100 + torch.randn(sum(sizes), 3, 2, 2, generator=generator)
    merged = merge(moments_of(part) for part in values.split(sizes))
    rows = values.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(merged.mean, rows.mean(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(merged.variance, rows.var(1), rtol=1e-9, atol=0)


def rows(features: Tensor, labels: Tensor, pieces: int = 1) -> Rows:
    parts = zip(features.chunk(pieces), labels.chunk(pieces), strict=True)
    return Rows([lambda part=part: part for part in parts])


def clusters(num: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (num,), generator=generator)
    centres = torch.tensor([[0.0, 0, 0, 0], [1.5, 0, 1, 0], [0, 1.5, 0, 1]])
    return centres[labels] + torch.randn(num, 4, generator=generator), labels


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("num", "width"), [(7, 40), (30, 40), (300, 40)])
def test_the_solution_has_no_slope_however_wide_the_features(num: int, width: int, has_bias: bool) -> None:
    generator = torch.Generator().manual_seed(num)
    features = torch.randn(num, width, generator=generator) + 3.0
    labels = torch.arange(num) % 3
    old = Head(0.1 * torch.randn(3, width, generator=generator).double(), torch.zeros(3).double())
    weights = [0.5, 1.0, 2.0]
    found = search(rows(features, labels), rows(features, labels), old, 0.1, weights, has_bias)
    weight, bias = found.head.weight.clone().requires_grad_(), found.head.bias.clone().requires_grad_()
    losses = nn.functional.cross_entropy(
        features.double() @ weight.T + bias, labels, label_smoothing=0.1, reduction="none"
    )
    # Smoothing weighs a picture's loss whole here, by its own class; PyTorch would weigh every class of the target.
    mean = features.double().mean(0) if has_bias else torch.zeros(width).double()
    variance = (features.double() - mean).square().mean()
    assert found.chosen.decay is not None
    pull = found.chosen.decay * variance / 2 * (weight - old.weight).square().sum()
    ((losses * torch.tensor(weights).double()[labels]).mean() + pull).backward()
    assert float(weight.grad.abs().max()) < 3e-4  # type: ignore[union-attr]
    if has_bias:
        assert float(bias.grad.abs().max()) < 3e-4  # type: ignore[union-attr]
    else:
        assert not found.head.bias.any()


def test_the_head_is_solved_to_convergence_in_any_number_of_pieces() -> None:
    features, labels = clusters(400, 0)
    select = rows(*clusters(200, 1))
    old = Head(torch.zeros(3, 4).double(), torch.zeros(3).double())
    found = search(rows(features, labels), select, old, smoothing=0.1)
    again = search(rows(features.double(), labels, pieces=7), select, old, smoothing=0.1)
    torch.testing.assert_close(found.head.weight, again.head.weight, rtol=1e-5, atol=1e-6)
    assert found.chosen.top1 > 60
    # At the solution, the gradient of the stage's loss equals the pull: nothing is left to gain.
    weight = found.head.weight.clone().requires_grad_(True)
    loss = nn.functional.cross_entropy(features.double() @ weight.T + found.head.bias, labels, label_smoothing=0.1)
    (gradient,) = torch.autograd.grad(loss, weight)
    assert found.chosen.decay is not None
    variance = float(features.double().var(0, unbiased=False).mean())
    torch.testing.assert_close(gradient, -found.chosen.decay * variance * found.head.weight, rtol=1e-3, atol=5e-5)


def test_a_head_that_is_best_already_stays() -> None:
    features, labels = clusters(60, 0)
    teacher = Head(torch.randn(3, 4, generator=torch.Generator().manual_seed(2)).double() * 4, torch.zeros(3).double())
    answers = teacher.logits(features).argmax(1)
    noise = labels
    found = search(rows(features, noise), rows(features, answers), teacher)
    assert found.chosen.decay is None
    assert found.head is teacher


def test_class_weights_reach_the_head() -> None:
    features, labels = clusters(300, 3)
    select = rows(*clusters(100, 4))
    old = Head(torch.zeros(3, 4).double(), torch.zeros(3).double())
    plain = search(rows(features, labels), select, old).head
    weighted = search(rows(features, labels), select, old, class_weights=(2.5, 0.25, 0.25)).head
    share = [float((h.logits(features).argmax(1) == 0).float().mean()) for h in (plain, weighted)]
    assert share[1] > share[0] + 0.1


def test_views_are_the_test_crop_its_mirror_and_shifted_crops() -> None:
    p = Preprocess(48, crop_ratio=0.75)
    picture = DATA.split("train").read(0)
    decoded = tuple(views_of(picture, q)[None] for q in views.preprocesses(p, 10))
    seen = [views.view(decoded, number, 48) for number in range(10)]
    assert torch.equal(seen[0], decoded[0])
    assert torch.equal(seen[1], decoded[0].flip(-1))
    assert torch.equal(seen[2], decoded[1][..., 8:56, 0:48])
    assert torch.equal(seen[4], decoded[1][..., 8:56, 16:64])
    assert all(tuple(t.shape) == (1, 3, 48, 48) for t in seen)
    assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    assert views.max_views(Preprocess(48, crop_ratio=1.0)) == 2


def test_evaluation_and_solver_see_the_same_pictures(tmp_path: Path) -> None:
    model = warm()
    task = problem(model, tmp_path, "head")
    found = solve.solve(task)
    measured = evaluate(model, task.select, [task.preprocess], task.runtime, task.reading)
    assert found.chosen is not None
    assert measured.results[0]["top1"] == found.chosen.top1


@pytest.mark.system
def test_two_processes_write_the_bytes_of_one(make_recipe: Make, tmp_path: Path) -> None:
    run_recipe(make_recipe(data={"uri": "synthetic:classes=3,images=700,size=48"}), tmp_path / "base")
    fix = ["-m", "fixres", "fix", str(tmp_path / "base"), "--size", "48", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    for words in ([*fix, str(tmp_path / "one")], [*launch, *fix, str(tmp_path / "two")]):
        subprocess.run([sys.executable, *words], check=True, env=environment, capture_output=True)
    one, two = (tmp_path / name / "model" / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_an_interrupted_fix_goes_on_with_the_same_command(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_recipe(make_recipe(), tmp_path / "run")
    words = ["fix", str(tmp_path / "run"), "--size", "48", "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0

    def die(*_: Any) -> None:
        raise MemoryError

    module = importlib.import_module("fixres.training.cached_solver.solve")
    with monkeypatch.context() as patched:
        patched.setattr(module, "_search", die)
        with pytest.raises(MemoryError):
            main([*words, str(tmp_path / "cut")])
    assert main([*words, str(tmp_path / "cut")]) == 2
    assert "go on with --resume" in capsys.readouterr().err
    written: list[str] = []
    write = Cache.write

    def note(self: Cache, what: str, chunk: int, tensors: Any) -> None:
        written.append(what.partition(".")[0])
        write(self, what, chunk, tensors)

    monkeypatch.setattr(Cache, "write", note)
    assert main([*words, str(tmp_path / "cut"), "--resume"]) == 0
    assert written == ["solution"]
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "cut"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--moves", "stats", "--size", "160"], "use --moves head"),
        (["--solver", "cached", "--moves", "all", "--size", "160"], "use --solver sgd"),
        (["--solver", "sgd", "--epochs", "1", "--batch-size", "4000", "--size", "160"], "--batch-size 4000"),
        (["--solver", "cached", "--epochs", "2", "--size", "160"], "--epochs is for training by sgd"),
        (["--solver", "sgd", "--views", "3", "--size", "160"], "--views is for the cached solver"),
    ],
)
def test_fix_names_its_own_flags(
    tmp_path: Path, make_recipe: Make, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    run_recipe(make_recipe(model={"name": "test_vit"}, train={"size": 160, "epochs": 1}), tmp_path / "run")
    assert main(["fix", str(tmp_path / "run"), *words]) == 2
    assert said in capsys.readouterr().err
