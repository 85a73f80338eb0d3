"""What the head is given against size: measured in the run, drawn in the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fixres.checkpoints.resolve import load
from fixres.config.recipe import Recipe
from fixres.data.collections import open_collection
from fixres.data.transforms import evaluation_crop, normalise
from fixres.evaluation.activation_statistics import FILE
from fixres.models.anatomy import head_names
from fixres.reporting.page import write_report
from fixres.training.run import run_recipe


@pytest.mark.usefixtures("few_decays")
def test_a_fixed_run_knows_what_its_head_is_given(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(fix={"size": 64, "moves": "head", "epochs": 1}, evaluation={"sizes": [32, 64]})
    run_recipe(recipe, tmp_path / "r")
    found = json.loads((tmp_path / "r" / FILE).read_text())
    assert [row["size"] for row in found["before"]] == [32, 64]
    assert found["before"] == found["fixed"]
    assert found["before"][0]["large"] == pytest.approx(1, abs=0.1)
    assert found["seen"]["train"] != found["seen"]["test"]

    product = load(str(tmp_path / "r"), "before_fix")
    split = open_collection(recipe.data, tmp_path / "r" / "split.json").split(found["split"])
    p = product.preprocess.at(64)
    images = torch.stack([evaluation_crop(split.read(i), p) for i in range(len(split))])
    assert found["num_images"] == len(split)
    features: list[torch.Tensor] = []
    head = product.model.get_submodule(head_names(product.model)[0])
    head.register_forward_pre_hook(lambda _m, inputs: features.append(inputs[0]))
    with torch.inference_mode():
        product.model(normalise(images, p.mean, p.std))
    values = features[0].numpy()
    row = found["before"][1]
    assert row["zeros"] == pytest.approx(100 * float((values == 0).mean()), abs=0.01)
    assert row["spread"] == pytest.approx(float(np.std(values)), rel=1e-4)

    page = write_report([tmp_path / "r"], tmp_path / "r.html").read_text()
    assert "Why it works" in page
    assert "In training a random crop shows the network" in page
    assert f"{row['spread']:.3g}" in page


def test_statistics_that_move_change_what_the_head_is_given(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    run_recipe(make_recipe(fix={"size": 64, "moves": "stats"}, evaluation={"sizes": [32, 64]}), tmp_path / "r")
    found = json.loads((tmp_path / "r" / FILE).read_text())
    assert found["before"][1]["spread"] != found["fixed"][1]["spread"]


def test_a_run_without_a_fix_or_a_damaged_file_leaves_the_section_out(trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "r")
    assert not (tmp_path / "r" / FILE).exists()
    (tmp_path / "r" / FILE).write_text('{"before": [{"size": 32}]}')
    assert "Why it works" not in write_report([tmp_path / "r"], tmp_path / "r.html").read_text()
