"""What the head is given against size: measured in the run, drawn in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fixres.checkpoints.resolve import load
from fixres.config.recipe import Recipe
from fixres.data.collections import open_collection
from fixres.data.transforms import evaluation_crop, normalise
from fixres.evaluation.activation_statistics import FILE
from fixres.models.anatomy import head_names
from fixres.reporting.page import write_report
from fixres.resolution import Preprocess, seen_share, simulated_crop_share
from fixres.training.run import run_recipe


@given(st.integers(32, 300), st.floats(0.4, 2.5), st.sampled_from(["shorter", "height", "squash", "pad"]))
def test_the_share_seen_is_that_of_the_crop(size: int, aspect: float, resize: str) -> None:
    p = Preprocess(size, resize=resize)  # type: ignore[arg-type]
    share = seen_share(p, aspect)
    assert 0 < share <= 1
    if resize in ("squash", "pad"):
        assert share == 1
        return
    # A picture of height 1,000 and that aspect, resized and cropped: the pixels of it that are left.
    side = 1000 * (min(1.0, aspect) if resize == "shorter" else 1.0)
    crop = side * p.size / p.resize_size
    assert share == pytest.approx(min(crop, 1000 * aspect) * min(crop, 1000) / (1000 * 1000 * aspect))


def test_random_crops_show_the_mean_of_their_scale_where_every_shape_fits() -> None:
    assert simulated_crop_share(1.0, (0.1, 0.5)) == pytest.approx(0.3, abs=2e-3)
    assert simulated_crop_share(1.0, (0.08, 1.0)) < 0.54


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


def test_a_run_without_a_fix_or_a_damaged_file_leaves_the_section_out(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    run_recipe(make_recipe(train={"epochs": 1}), tmp_path / "r")
    assert not (tmp_path / "r" / FILE).exists()
    (tmp_path / "r" / FILE).write_text('{"before": [{"size": 32}]}')
    assert "Why it works" not in write_report([tmp_path / "r"], tmp_path / "r.html").read_text()
