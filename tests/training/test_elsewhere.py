"""What sizes and a fix give on other pictures: in a run, its report, and the advice before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.errors import UserError
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import measure_product
from fixres.evaluation.other_pictures import Column
from fixres.reporting.page import read_report
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe
from tests.conftest import tiny_recipe

OTHER = "synthetic:classes=3,images=60,size=56,seed=7"
SPOILED = "blur=3"

pytestmark = pytest.mark.usefixtures("few_decays")


def eval_top1(checkpoint: str, size: int, **asked: Any) -> list[float]:
    found = measure_product(load(checkpoint), EvalRequest(sizes=(size,), workers=0, **asked))
    return [result["top1"] for result in found.answer["results"]]


def test_a_run_measures_before_and_after_its_fix_on_other_pictures(tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = tiny_recipe(evaluation={"also": [OTHER], "corrupt": SPOILED}, fix={"size": 48})
    run_recipe(recipe, run)
    (event,) = [event for event in read_events(run) if event["event"] == "elsewhere"]
    assert [column["name"] for column in event["columns"]] == [OTHER, SPOILED]
    assert [(row["label"], row["size"]) for row in event["rows"]] == [
        ("train size", 32),
        ("larger size only", 48),
        ("fixed", 48),
    ]
    for row in event["rows"]:
        checkpoint = str(run) if row["label"] == "fixed" else f"{run}#before_fix"
        (elsewhere,) = eval_top1(checkpoint, row["size"], data=OTHER)
        _, spoiled = eval_top1(checkpoint, row["size"], corrupt=SPOILED)
        assert row["top1"] == [elsewhere, spoiled], row["label"]
    page = read_report([run]).write_html(tmp_path / "r.html").read_text()
    assert "on other pictures" in page
    assert OTHER in page
    content = json.loads(read_report([run]).to_json())
    assert content["runs"][0]["elsewhere"]["rows"] == event["rows"]


def test_what_cannot_be_measured_is_refused_before_anything_runs(tmp_path: Path) -> None:
    for changed, answer in (
        ({"also": [str(tmp_path / "nowhere")]}, "nowhere"),
        ({"also": ["synthetic:classes=9,images=60,size=56"]}, "class"),
        ({"corrupt": "blurr=3"}, "did you mean 'blur'"),
    ):
        with pytest.raises(UserError, match=answer):
            run_recipe(tiny_recipe(evaluation=changed), tmp_path / "run")
        assert not (tmp_path / "run" / "model").exists()


def test_other_pictures_that_cannot_be_read_cost_no_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise UserError("bad.jpg cannot be read")

    monkeypatch.setattr(Column, "top1", fails)
    run_recipe(tiny_recipe(evaluation={"also": [OTHER]}, fix={"size": 48}), tmp_path / "run")
    assert load(str(tmp_path / "run")).preprocess.size == 48
    notes = [event["text"] for event in read_events(tmp_path / "run") if event["event"] == "note"]
    assert "other pictures were not measured: bad.jpg cannot be read" in notes
    # A resumed run may ask for others, or for none.
    run_recipe(tiny_recipe(fix={"size": 48}), tmp_path / "run", resume=True)


def test_the_advice_shows_every_row_on_other_pictures(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.json"
    words = ["--sizes", "32,48", "--crop-ratios", "0.875", "--also", OTHER, "--corrupt", SPOILED, "--json", str(out)]
    assert main(["advise", str(trained_run), *words]) == 0
    # The table breaks long names over lines.
    assert "classes=3" in capsys.readouterr().err
    answer = json.loads(out.read_text())
    assert [column["name"] for column in answer["also"]] == [OTHER, SPOILED]
    as_it_is = {row["size"]: row["also"] for row in answer["rows"] if row["network"] == "as it is"}
    for size, (elsewhere, _) in as_it_is.items():
        assert eval_top1(str(trained_run), size, data=OTHER) == [elsewhere]
    assert all(len(row["also"]) == 2 for row in answer["rows"])
    assert main(["advise", str(trained_run), "--corrupt", "blurr=3"]) == 2
    assert "did you mean" in capsys.readouterr().err
