"""`fixres bench fix`: both solvers fix the same network, and what is told of them is what their runs hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.cli.main import main
from fixres.config.recipe import Recipe
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe

Make = Callable[..., Recipe]


@pytest.fixture
def runs(tmp_path: Path, make_recipe: Make) -> list[str]:
    folders = [tmp_path / f"run-{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        run_recipe(make_recipe(seed=seed), folder)
    return [str(folder) for folder in folders]


def test_both_solvers_fix_the_same_networks(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kept"
    words = ["--size", "48", "--vs", "v2,v1,v2", "--epochs", "3", "--out", str(out), "--json", "-"]
    assert main(["bench", "fix", *runs, *words]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["epochs"] == {"v2": 3, "v1": 3}
    assert len(found["forward_seconds"]) == len(found["num_passes"]) == 2
    assert min(found["forward_seconds"]) > 0
    for side, solver, augment in (("cached", "cached", None), ("v2", "sgd", "v2"), ("v1", "sgd", "v1")):
        for k in (0, 1):
            events = read_events(out / f"{k}-{side}")
            fix = next(e for e in events if e["event"] == "fix")
            assert (fix["size"], fix["solver"]) == (48, solver)
            assert found["sides"][side]["seconds"][k] == fix["solver_seconds"]
            product = json.loads((out / f"{k}-{side}" / "model" / "config.json").read_text())
            logged = {r["split"]: r["top1"] for r in product["fixres"]["results"] if r["size"] == 48}
            assert found["sides"][side]["top1"][found["report"]][k] == pytest.approx(logged[found["report"]])
            if augment:
                assert f"augment: {augment}" in (out / f"{k}-{side}" / "recipe.yaml").read_text()
    side = found["sides"]["v2"]
    ratios = sorted(
        theirs / ours for theirs, ours in zip(side["seconds"], found["sides"]["cached"]["seconds"], strict=True)
    )
    assert [side["ratio_lowest"], side["ratio_highest"]] == pytest.approx(ratios)
    assert found["ratio"] == pytest.approx(sum(ratios) / 2)
    for split, n in found["num_images"].items():
        mine, theirs = found["sides"]["cached"]["top1"][split], side["top1"][split]
        difference = side["cached_minus_this"][split]
        assert difference["num_images"] == n
        assert difference["per_seed"] == pytest.approx([a - b for a, b in zip(mine, theirs, strict=True)])
        low, high = difference["ci95"]
        assert low <= difference["mean"] <= high
    assert "one forward pass over the training pictures" in told.err


def test_a_fixed_product_is_fixed_anew_from_what_it_was(
    tmp_path: Path, make_recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    bare, fixed = tmp_path / "bare", tmp_path / "fixed"
    run_recipe(make_recipe(), bare)
    run_recipe(make_recipe(fix={"size": 40, "epochs": 1}), fixed)
    answers = []
    for run in (bare, fixed):
        assert main(["bench", "fix", str(run), "--size", "48", "--epochs", "1", "--json", "-"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["sides"]["cached"]["top1"])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "48"], "CHECKPOINTS is missing"),
        (["{run}", "--size", "48", "--out", "{run}"], "exists already"),
        (["{run}", "--size", "48", "--vs", "v3"], "--vs"),
        (["nowhere", "--size", "48"], "nowhere"),
        (["{run}"], "--size"),
        (["{run}", "nowhere", "--size", "48"], "nowhere"),
        (["{run}", "{other}", "--size", "48"], "not made from the same pictures"),
        (["{two_heads}", "--size", "64"], "--size 64 --solver sgd"),
    ],
)
def test_what_cannot_be_measured_is_said(
    words: list[str], said: str, tmp_path: Path, make_recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {name: tmp_path / name for name in ("run", "other", "two_heads")}
    run_recipe(make_recipe(train={"epochs": 1}), folders["run"])
    if "{other}" in words:
        run_recipe(make_recipe(data={"uri": "synthetic:classes=3,images=54,size=48"}), folders["other"])
    if "{two_heads}" in words:
        recipe = make_recipe(model={"name": "repvit_m0_9"}, train={"size": 64, "epochs": 1})
        run_recipe(recipe, folders["two_heads"])
    out = [] if "--out" in words else ["--out", str(tmp_path / "kept")]
    assert main(["bench", "fix", *(word.format(**folders) for word in words), *out]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
