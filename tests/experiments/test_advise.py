"""Which size to use: the theory's published figures, and advice that follows what was measured."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.config.loading import validate
from fixres.errors import UserError
from fixres.experiments.advise import advise
from fixres.experiments.questions import Question
from fixres.models.build import build_model
from fixres.models.candidate_sizes import offer_sizes
from fixres.resolution import (
    Preprocess,
    apparent_ratio,
    matching_size,
    mean_crop_side,
    pareto_front,
    simulated_crop_side,
    simulated_ratio,
)
from fixres.training.run import run_recipe

ALL = (0.08, 1.0)


def test_the_formula_gives_the_figures_of_the_paper() -> None:
    ratio = apparent_ratio(Preprocess(224), "random", ALL, Preprocess(224))
    assert mean_crop_side(ALL) == pytest.approx(0.7082, abs=5e-5)
    assert ratio == pytest.approx(0.8094, abs=5e-5)
    assert 1 / ratio == pytest.approx(1.235, abs=5e-4)
    assert matching_size(Preprocess(224), "random", ALL) == 288


@pytest.mark.parametrize(
    ("aspect", "side", "ratio"), [(1.0, 0.668, 0.763), (4 / 3, 0.635, 0.838), (3 / 2, 0.603, 0.844)]
)
def test_the_crop_that_is_drawn_is_smaller_than_the_formula(aspect: float, side: float, ratio: float) -> None:
    assert simulated_crop_side(aspect, ALL) == pytest.approx(side, abs=2e-3)
    p = Preprocess(224)
    assert simulated_ratio(p, ALL, (3 / 4, 4 / 3), p, [aspect]) == pytest.approx(ratio, abs=5e-3)


def test_the_height_resize_of_a_portrait_shows_objects_smaller() -> None:
    p = Preprocess(224, resize="height")
    assert simulated_ratio(p, ALL, (3 / 4, 4 / 3), p, [3 / 4]) == pytest.approx(0.628, abs=5e-3)


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=12))
def test_nothing_on_the_front_is_beaten_and_everything_else_is(points: list[tuple[int, int]]) -> None:
    cost, accuracy = [c for c, _ in points], [a for _, a in points]
    front = pareto_front(cost, accuracy)
    for i in range(len(points)):
        beaten = any(
            cost[j] <= cost[i] and accuracy[j] >= accuracy[i] and (cost[j], accuracy[j]) != (cost[i], accuracy[i])
            for j in range(len(points))
        )
        assert not (i in front and beaten)
        twin = any((cost[j], accuracy[j]) == (cost[i], accuracy[i]) for j in front)
        assert i in front or beaten or twin


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("advise") / "r"
    recipe = validate(
        {
            "data": {"uri": "synthetic:classes=3,images=48,size=64", "workers": 0},
            "model": {"name": "test_resnet"},
            "train": {"size": 32, "epochs": 1, "batch_size": 16},
            "output": {"tracker": "none"},
            "runtime": {"threads": 1},
        }
    )
    run_recipe(recipe, folder)
    return folder


@pytest.mark.parametrize(
    ("name", "size", "sizes", "matching"),
    [
        ("test_resnet", 224, (224, 256, 288, 320, 384, 448), 288),
        ("test_resnet", 64, (64, 96, 128), 96),
        ("test_vit", 160, (160, 192, 224, 256, 288, 320), 192),
        ("vit_small_patch14_dinov2", 224, (224, 238, 280, 322, 364, 406, 448), 280),
        ("vit_small_patch14_dinov2", 518, (518, 532, 630, 644, 728, 826, 924, 1022), 644),
        ("pit_ti_224", 224, (224,), 224),
        # Of every 32 px up to its double it takes none but itself.
        ("halonet26t", 256, (256, 512), 512),
    ],
)
def test_sizes_are_multiples_of_what_the_network_takes_and_the_matching_one_is_among_them(
    name: str, size: int, sizes: tuple[int, ...], matching: int
) -> None:
    stage = validate({"data": {"uri": "synthetic:classes=2"}}).train
    offer = offer_sizes(build_model(name, 2, {"img_size": size} if "vit" in name else {}), Preprocess(size), stage)
    assert (offer.sizes, offer.matching) == (sizes, matching)
    assert offer.exact == pytest.approx(size * 1.235, rel=1e-2)


def test_no_size_is_added_where_objects_look_as_large_already() -> None:
    stage = validate({"data": {"uri": "synthetic:classes=2"}, "train": {"crop_scale": [0.7, 0.8]}}).train
    offer = offer_sizes(build_model("test_resnet", 2), Preprocess(224, crop_ratio=0.9), stage)
    assert 224 < offer.exact < 235
    assert (offer.sizes, offer.matching) == ((224, 256, 320, 384, 448), 224)


def test_before_a_fix_at_auto_the_matching_size_is_measured_and_kept_to(tmp_path: Path) -> None:
    recipe = validate(
        {
            "data": {"uri": "synthetic:classes=2,images=12,size=64", "workers": 0},
            "model": {"name": "test_resnet"},
            "train": {"size": 224, "epochs": 1, "batch_size": 6},
            "fix": {"size": "auto", "moves": "stats"},
            "output": {"tracker": "none"},
            "runtime": {"threads": 1},
        }
    )
    outcome = run_recipe(recipe, tmp_path / "r")
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    sweeps = [[result["size"] for result in line["results"]] for line in lines if line["event"] == "sweep"]
    assert sweeps == [[224, 256, 288, 320, 384, 448]] * 2
    assert outcome.size >= 288


def test_nothing_is_measured_twice_where_nothing_is_cropped(trained: Path) -> None:
    product = load(str(trained))
    squashed = replace(product, preprocess=replace(product.preprocess, resize="squash"))
    answer = advise(squashed, Question(sizes=(32, 64), fixed=False))
    assert [(row["size"], row["view"]) for row in answer["rows"]] == [(32, "squash"), (64, "squash")]
    assert answer["theory"]["apparent_ratio"] == pytest.approx(0.708, abs=1e-3)
    with pytest.raises(UserError, match=r"--crop-ratios 0\.5,1: resize squash shows the whole picture"):
        advise(squashed, Question(sizes=(32,), crop_ratios=(0.5, 1.0)))


def test_advice_is_the_cheapest_within_one_standard_error_and_keeps_to_the_budget(trained: Path) -> None:
    product = load(str(trained))
    answer = advise(product, Question(sizes=(32, 64)))
    assert {(r["network"], r["size"], r["crop_ratio"]) for r in answer["rows"]} == {
        *((("as it is"), size, ratio) for size in (32, 64) for ratio in (0.875, 1.0)),
        *(("fixed", size, 0.875) for size in (32, 64)),
    }
    assert answer["theory"]["crop_is_known"]
    assert answer["theory"]["num_aspects"] > 1
    cheap = min(row["gmacs"] for row in answer["rows"])
    limited = advise(product, Question(sizes=(32, 64), budget_gmacs=1.5 * cheap, fixed=False))
    assert limited["advice"]["size"] == 32
    assert limited["not_fixed"] is None
    with pytest.raises(UserError, match=r"nothing measured is within the budget\n  the cheapest is 32 px"):
        advise(product, Question(sizes=(32,), budget_ms=1e-9, fixed=False))


def test_a_budget_below_every_size_is_refused_before_anything_is_measured(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["fixres.experiments.advise"], "evaluate_all", lambda *_: pytest.fail("measured"))
    words = r"--budget-gmacs 1e-09: no size is within it\n  the cheapest is 32 px: 0\.00\d+ GMACs"
    with pytest.raises(UserError, match=words):
        advise(load(str(trained)), Question(sizes=(64, 32), budget_gmacs=1e-9))


def test_it_is_said_why_nothing_could_be_fixed(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    product = load(str(trained))
    two_heads = replace(product, model=build_model("repvit_m0_9", 3).eval())
    answer = advise(two_heads, Question(sizes=(32,)))
    assert {row["network"] for row in answer["rows"]} == {"as it is"}
    assert answer["not_fixed"].startswith("the cached solver does not suit 'repvit_m0_9': head is no linear layer")
    monkeypatch.setattr("fixres.cli.commands.advise.open_product", lambda *_: two_heads)
    assert main(["advise", str(trained), "--sizes", "32"]) == 0
    assert "nothing was fixed: the cached solver does not suit" in " ".join(capsys.readouterr().err.split())


def test_the_only_labelled_split_is_halved_to_choose_and_to_report(trained: Path, tmp_path: Path) -> None:
    for label in ("class 0", "class 1", "class 2"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (40, 40), (60 * number, 90, 120)).save(tmp_path / "data" / label / f"{number}.png")
    product = replace(load(str(trained)), details={}, home=None, classes=("class 0", "class 1", "class 2"))
    answer = advise(product, Question(data=str(tmp_path / "data"), sizes=(32,)))
    assert (answer["split"], answer["num_images"], answer["confirmed"]["num_images"]) == ("all", 6, 6)
    assert answer["halves"] == "there is no other split to report on, so one half chooses, the other confirms"
    assert "has no split named train" in answer["not_fixed"]


def test_the_command_writes_what_it_says(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "advice.json"
    assert main(["advise", str(trained), "--sizes", "32,64", "--fixed", "false", "--json", str(path)]) == 0
    answer = json.loads(path.read_text())
    text = capsys.readouterr().err
    assert f"advice: as it is at {answer['advice']['size']} px" in text
    assert "objects look 0.797 times as large" in text
    assert "as large at about 40 px, for which 64 px is used" in text


def test_the_plot_is_drawn_as_svg_and_png(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["advise", str(trained), "--sizes", "32,64", "--fixed", "false", "--plot"]
    assert main([*words, str(tmp_path / "a.svg")]) == 0
    svg = (tmp_path / "a.svg").read_text()
    assert "as it is, crop 0.875" in svg
    assert "nothing is cheaper and as good" in svg
    assert main([*words, str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main([*words, str(tmp_path / "a.jpg")]) == 2
    assert "ends in .svg or .png" in capsys.readouterr().err


@pytest.mark.parametrize("fixed", [True, False])
def test_many_pictures_are_halved_and_what_is_chosen_is_confirmed(
    trained: Path, fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["fixres.experiments.advise"], "HALVES_FROM", 10)
    answer = advise(load(str(trained)), Question(sizes=(32, 64), fixed=fixed))
    assert answer["num_images"] == 8
    assert answer["confirmed"]["num_images"] == 8
    assert 0 <= answer["confirmed"]["top1"] <= 100
    assert all("confirmed" not in row for row in answer["rows"])
