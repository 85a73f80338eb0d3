"""Two sizes in turn: the threshold comes from other pictures, and the weights from before the fix where they suit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.evaluation.eval_request import SplitRequest
from fixres.inference.cascade import CascadePredictor, CascadeRequest, measure_cascade
from fixres.inference.ensemble import measure_ensemble
from fixres.inference.predict import Predictor
from fixres.runtime.device import Runtime

BOTH = CascadeRequest((32, 48))


def test_a_cascade_is_chosen_on_one_split_and_reported_on_another(fixed_run: Path) -> None:
    product = load(str(fixed_run))
    answer = measure_cascade(product, BOTH, SplitRequest(workers=0))
    found = answer["cascade"]
    assert (found["chosen_on"], answer["split"]) == ("val", "test")
    assert found["weights"] == ["before_fix", "raw"]
    before = load(str(fixed_run), "before_fix")
    alone = measure_ensemble(before, (32, 48), SplitRequest(workers=0))["results"][0]
    assert answer["results"][0]["loss"] == pytest.approx(alone["loss"])
    large_alone = measure_ensemble(product, (32, 48), SplitRequest(workers=0, split="val"))["results"][1]
    assert found["on_select"]["top1"] >= large_alone["top1"]
    small, large = (r["gmacs"] for r in answer["results"])
    assert found["gmacs"] == pytest.approx(small + found["share"] * large)
    assert found["is_reached"] == (found["is_as_good"] and found["cost_ratio"] <= 0.6)


def test_a_smaller_size_no_smaller_than_the_fixed_one_uses_the_fixed_weights(
    fixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    product = load(str(fixed_run))
    answer = measure_cascade(product, CascadeRequest((48, 64)), SplitRequest(workers=0))
    assert answer["cascade"]["weights"] == ["raw", "raw"]
    alone = measure_ensemble(product, (48, 64), SplitRequest(workers=0))["results"][0]
    assert answer["results"][0]["loss"] == pytest.approx(alone["loss"])
    kept = {"sizes": [48, 64], "threshold": 0.5, "chosen_on": "val"}
    product = replace(product, details={**product.details, "cascade": kept})
    predictor = CascadePredictor(product, partial(Predictor, runtime=Runtime(RuntimeSettings(device="cpu"))))
    assert predictor.small.product.weights == "raw"
    told = answer["cascade"]["weights_why"]
    assert told == predictor.weights_why == "48 px and 64 px with the fixed weights, which are made for 48 px"
    assert main(["eval", str(fixed_run), "--cascade", "32,48", "--weights", "before_fix", "--workers", "0"]) == 0
    assert "32 px and 48 px with the weights from before the fix" in capsys.readouterr().err


def test_without_a_selecting_split_halves_take_its_place(fixed_run: Path) -> None:
    foreign = load(str(fixed_run), "before_fix")
    answer = measure_cascade(foreign, BOTH, SplitRequest(workers=0, split="val"))
    assert "half of val" in answer["cascade"]["chosen_on"]
    assert answer["num_images"] == 8
    assert answer["cascade"]["weights"] == ["before_fix", "before_fix"]
