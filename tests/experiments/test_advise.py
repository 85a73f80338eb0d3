"""Advice follows what was measured, and keeps to the budget."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.errors import UserError
from fixres.experiments.advise import advise
from fixres.experiments.questions import Question
from fixres.models.build import build_model

pytestmark = pytest.mark.usefixtures("few_decays")


def test_nothing_is_measured_twice_where_nothing_is_cropped(trained_run: Path) -> None:
    product = load(str(trained_run))
    squashed = replace(product, preprocess=replace(product.preprocess, resize="squash"))
    answer = advise(squashed, Question(sizes=(32, 64), fixed=False))
    assert [(row["size"], row["view"]) for row in answer["rows"]] == [(32, "squash"), (64, "squash")]
    assert answer["theory"]["apparent_ratio"] == pytest.approx(0.708, abs=1e-3)
    with pytest.raises(UserError, match=r"--crop-ratios 0\.5,1: resize squash shows the whole picture"):
        advise(squashed, Question(sizes=(32,), crop_ratios=(0.5, 1.0)))


def test_advice_is_the_cheapest_within_one_standard_error_and_keeps_to_the_budget(trained_run: Path) -> None:
    product = load(str(trained_run))
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
    trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["fixres.experiments.advise"], "evaluate_all", lambda *_: pytest.fail("measured"))
    words = r"--budget-gmacs 1e-09: no size is within it\n  the cheapest is 32 px: 0\.00\d+ GMACs"
    with pytest.raises(UserError, match=words):
        advise(load(str(trained_run)), Question(sizes=(64, 32), budget_gmacs=1e-9))


def test_it_is_said_why_nothing_could_be_fixed(
    trained_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    product = load(str(trained_run))
    two_heads = replace(product, model=build_model("repvit_m0_9", 3).eval())
    answer = advise(two_heads, Question(sizes=(32,)))
    assert {row["network"] for row in answer["rows"]} == {"as it is"}
    assert answer["not_fixed"].startswith("the cached solver does not suit 'repvit_m0_9': head is no linear layer")
    monkeypatch.setattr("fixres.cli.commands.advise.open_product", lambda *_: two_heads)
    assert main(["advise", str(trained_run), "--sizes", "32"]) == 0
    assert "nothing was fixed: the cached solver does not suit" in " ".join(capsys.readouterr().err.split())


def test_the_only_labelled_split_is_halved_to_choose_and_to_report(trained_run: Path, tmp_path: Path) -> None:
    for label in ("class 0", "class 1", "class 2"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (40, 40), (60 * number, 90, 120)).save(tmp_path / "data" / label / f"{number}.png")
    product = replace(load(str(trained_run)), details={}, home=None, classes=("class 0", "class 1", "class 2"))
    answer = advise(product, Question(data=str(tmp_path / "data"), sizes=(32,)))
    assert (answer["split"], answer["num_images"], answer["confirmed"]["num_images"]) == ("all", 6, 6)
    assert answer["halves"] == "there is no other split to report on, so one half chooses, the other confirms"
    assert "has no split named train" in answer["not_fixed"]


@pytest.mark.parametrize("fixed", [True, False])
def test_many_pictures_are_halved_and_what_is_chosen_is_confirmed(
    trained_run: Path, fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["fixres.experiments.advise"], "HALVES_FROM", 10)
    answer = advise(load(str(trained_run)), Question(sizes=(32, 64), fixed=fixed))
    assert answer["num_images"] == 8
    assert answer["confirmed"]["num_images"] == 8
    # Of eight pictures.
    assert answer["confirmed"]["top1"] % 12.5 == 0
    assert all("confirmed" not in row for row in answer["rows"])
