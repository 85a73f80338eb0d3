"""Sizes taken together: a mean of probabilities, and a cascade whose threshold comes from other pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.config.recipe import Recipe
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.evaluation.eval_request import SplitRequest
from fixres.inference.cascade import (
    EVERY,
    CascadePredictor,
    Twice,
    choose_threshold,
    curve,
    measure_cascade,
    thresholds,
)
from fixres.inference.ensemble import mean_probabilities, measure_ensemble
from fixres.runtime.device import Runtime
from fixres.training.run import run_recipe

OUTCOMES = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 20)), min_size=1, max_size=40)


def twice(outcomes: list[tuple[bool, bool, int]]) -> Twice:
    small, large, confidence = zip(*outcomes, strict=True)
    return Twice(np.array(small), np.array(large), np.array(confidence) / 20.0, 1.0, 3.0)


@given(OUTCOMES)
def test_cost_grows_with_the_threshold_and_the_ends_are_the_two_sizes(outcomes: list[tuple[bool, bool, int]]) -> None:
    found = twice(outcomes)
    levels = thresholds(found)
    costs = [found.gmacs(float(t)) for t in levels]
    assert costs == sorted(costs)
    assert (costs[0], costs[-1]) == (1.0, 4.0)
    assert np.array_equal(found.correct(float(levels[0])), found.small)
    assert np.array_equal(found.correct(EVERY), found.large)


@given(OUTCOMES)
def test_the_threshold_is_the_cheapest_that_loses_nothing(outcomes: list[tuple[bool, bool, int]]) -> None:
    found = twice(outcomes)
    chosen = choose_threshold(found)
    assert found.correct(chosen).sum() >= found.large.sum()
    for cheaper in thresholds(found):
        if cheaper < chosen:
            assert found.correct(float(cheaper)).sum() < found.large.sum()


@given(OUTCOMES, st.integers(2, 9))
def test_the_curve_goes_from_one_size_to_the_other(outcomes: list[tuple[bool, bool, int]], num: int) -> None:
    found = twice(outcomes)
    points = curve(found, num)
    assert 2 <= len(points) <= num
    assert (points[0]["share"], points[-1]["share"]) == (0, 1)
    assert points[-1]["top1"] == pytest.approx(100 * found.large.mean())


def test_probabilities_are_averaged_not_logits() -> None:
    mean = mean_probabilities([torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 100.0]])])
    torch.testing.assert_close(mean, torch.tensor([[0.25, 0.75]], dtype=torch.float64))
    assert mean_probabilities([torch.tensor([[0.0, 2000.0]])]).min() > 0


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fixres.config.loading import validate

    folder = tmp_path_factory.mktemp("together") / "run"
    recipe: Recipe = validate(
        {
            "data": {"uri": "synthetic:classes=3,images=60,size=64", "workers": 0},
            "model": {"name": "test_resnet"},
            "optim": {"lr": 0.02},
            "train": {"size": 32, "epochs": 2, "batch_size": 10},
            "fix": {"size": 64, "moves": "stats"},
            "output": {"tracker": "none"},
            "runtime": {"threads": 1},
        }
    )
    run_recipe(recipe, folder)
    return folder


def test_an_ensemble_is_the_mean_of_what_each_size_says(fixed: Path) -> None:
    product = load(str(fixed))
    answer = measure_ensemble(product, (32, 64), SplitRequest(workers=0))
    assert [r["size"] for r in answer["results"]] == [32, 64]
    assert answer["ensemble"]["sizes"] == [32, 64]
    assert answer["num_images"] == 20
    assert answer["ensemble"]["gmacs"] == pytest.approx(sum(r["gmacs"] for r in answer["results"]))
    same = measure_ensemble(product, (32, 64), SplitRequest(workers=0, batch_size=3))
    assert same["ensemble"]["top1"] == answer["ensemble"]["top1"]
    # The mean of probabilities pays no more loss than the worse size, whatever the network.
    assert answer["ensemble"]["loss"] <= max(r["loss"] for r in answer["results"])


def test_a_cascade_is_chosen_on_one_split_and_reported_on_another(fixed: Path) -> None:
    product = load(str(fixed))
    answer = measure_cascade(product, (32, 64), SplitRequest(workers=0))
    found = answer["cascade"]
    assert (found["chosen_on"], answer["split"]) == ("val", "test")
    assert found["weights"] == ["before_fix", "raw"]
    before = load(str(fixed), "before_fix")
    alone = measure_ensemble(before, (32, 64), SplitRequest(workers=0))["results"][0]
    assert answer["results"][0]["loss"] == pytest.approx(alone["loss"])
    assert found["on_select"]["top1"] >= 0
    small, large = (r["gmacs"] for r in answer["results"])
    assert found["gmacs"] == pytest.approx(small + found["share"] * large)
    assert found["is_reached"] == (found["is_as_good"] and found["cost_ratio"] <= 0.6)


def test_a_smaller_size_no_smaller_than_the_fixed_one_uses_the_fixed_weights(
    fixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    product = load(str(fixed))
    answer = measure_cascade(product, (64, 96), SplitRequest(workers=0))
    assert answer["cascade"]["weights"] == ["raw", "raw"]
    alone = measure_ensemble(product, (64, 96), SplitRequest(workers=0))["results"][0]
    assert answer["results"][0]["loss"] == pytest.approx(alone["loss"])
    kept = {"sizes": [64, 96], "threshold": 0.5, "chosen_on": "val"}
    product = replace(product, details={**product.details, "cascade": kept})
    predictor = CascadePredictor(product, Runtime(RuntimeSettings(device="cpu")))
    assert predictor.small.product.weights == "raw"
    told = answer["cascade"]["weights_why"]
    assert told == predictor.weights_why == "64 px and 96 px with the fixed weights, which are made for 64 px"
    assert main(["eval", str(fixed), "--cascade", "32,64", "--weights", "before_fix", "--workers", "0"]) == 0
    assert "32 px and 64 px with the weights from before the fix" in capsys.readouterr().err


def test_a_threshold_that_cannot_be_kept_is_refused_before_anything_is_measured(
    fixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: Any) -> None:
        pytest.fail("measured")

    monkeypatch.setattr("fixres.inference.cascade.measure_cascade", measure)
    words = ["--cascade", "32,64", "--save"]
    for more in (["--crop-ratio", "1.0"], ["--resize", "squash"]):
        assert main(["eval", str(fixed), *words, *more]) == 2
        assert f"--save does not go with {' '.join(more)}" in capsys.readouterr().err
    assert main(["eval", str(fixed), *words, "--weights", "before_fix"]) == 2
    assert "leave --weights out" in capsys.readouterr().err
    weights = tmp_path / "bare.safetensors"
    weights.write_bytes((fixed / "model" / "model.safetensors").read_bytes())
    assert main(["eval", str(weights), "--model", "test_resnet", "--data", "synthetic:classes=3", *words]) == 2
    assert f"fixres import {weights} --model test_resnet --out DIR" in capsys.readouterr().err


def test_without_a_selecting_split_halves_take_its_place(fixed: Path) -> None:
    foreign = load(str(fixed), "before_fix")
    answer = measure_cascade(foreign, (32, 64), SplitRequest(workers=0, split="val"))
    assert "half of val" in answer["cascade"]["chosen_on"]
    assert answer["num_images"] == 10
    assert answer["cascade"]["weights"] == ["before_fix", "before_fix"]


def test_the_commands_keep_and_use_a_cascade(
    fixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 80, 3), dtype=np.uint8)).save(picture)
    assert main(["predict", str(fixed), str(picture), "--cascade"]) == 2
    assert "--cascade SMALL,LARGE --save" in capsys.readouterr().err
    config = fixed / "model" / "config.json"
    before = json.loads(config.read_text())
    path = tmp_path / "c.json"
    assert main(["eval", str(fixed), "--cascade", "32,64", "--save", "--json", str(path), "--workers", "0"]) == 0
    err = capsys.readouterr().err
    assert "with the weights from before the fix" in err
    assert "cascade minus 64 px" in err
    found = json.loads(path.read_text())["cascade"]
    after = json.loads(config.read_text())
    assert after["fixres"].pop("cascade") == {k: found[k] for k in ("sizes", "threshold", "chosen_on")}
    assert after == before

    for threshold, size in ((0.0, 32), (EVERY, 64)):
        after["fixres"]["cascade"] = {"sizes": [32, 64], "threshold": threshold, "chosen_on": "val"}
        config.write_text(json.dumps(after))
        assert main(["predict", str(fixed), str(picture), "--cascade", "--format", "json"]) == 0
        answer: Any = json.loads(capsys.readouterr().out)
        assert [p["size"] for p in answer] == [size]
        weights = ["--weights", "before_fix"] if size == 32 else []
        assert main(["predict", str(fixed), str(picture), "--size", str(size), "--format", "json", *weights]) == 0
        alone: Any = json.loads(capsys.readouterr().out)
        # Their batches are of other sizes, so the last bits differ.
        assert [best["name"] for best in answer[0]["top"]] == [best["name"] for best in alone[0]["top"]]
        assert answer[0]["top"][0]["probability"] == pytest.approx(alone[0]["top"][0]["probability"], abs=1e-6)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--cascade", "64,32"), "--cascade 64,32: it takes two sizes, the smaller first"),
        (("--cascade", "32"), "--cascade 32: it takes two sizes"),
        (("--ensemble-sizes", "32"), "--ensemble-sizes 32: it takes two sizes or more"),
        (("--ensemble-sizes", "32,64", "--cascade", "32,64"), "one of them"),
        (("--cascade", "32,64", "--sizes", "32"), "--sizes"),
        (("--save",), "--cascade SMALL,LARGE --save"),
    ],
)
def test_what_makes_no_sense_is_refused(
    fixed: Path, words: tuple[str, ...], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(fixed), *words]) == 2
    assert answer in capsys.readouterr().err


def test_the_ensemble_command_prints_every_row(fixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(fixed), "--ensemble-sizes", "32,64", "--workers", "0", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["ensemble"]["sizes"] == [32, 64]
    assert "32+64" in err
    assert "mean of 2 sizes minus" in err
