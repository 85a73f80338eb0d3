"""A product of version 0.1.0 gives the numbers it gave then, and every command that reads it takes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from tests.support.golden_runs import FINISHED, expected, repeats_bits


def test_the_product_says_what_it_said() -> None:
    product = load(FINISHED)
    assert (product.architecture, product.train_size, product.preprocess.size) == ("test_resnet", 32, 48)
    assert product.classes == ("0-disc", "1-square", "2-triangle")
    assert (product.weights, product.details["moves"]) == ("raw", "head+stats")
    assert load(FINISHED, "before_fix").weights == "before_fix"


def test_eval_gives_the_numbers_of_then(tmp_path: Path) -> None:
    out = tmp_path / "eval.json"
    assert main(["eval", str(FINISHED), "--split", "val", "--sizes", "32,48", "--json", str(out), "--quiet"]) == 0
    found, then = json.loads(out.read_text()), expected()
    assert found["conditions"] == then["conditions"]
    for now, before in zip(found["results"], then["results"], strict=True):
        assert now.keys() == before.keys()
        for key in ("size", "top1", "confusion"):
            assert now[key] == before[key]
        for key in ("loss", "ece"):
            assert now[key] == pytest.approx(before[key], abs=1e-6)


def test_eval_says_that_the_logged_result_is_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(FINISHED)]) == 0
    said = capsys.readouterr()
    text = said.out + said.err
    if repeats_bits():
        assert "48 px: repeats the logged result exactly (31.25 %)" in text
    else:
        assert "48 px: 31.2500 %, logged 31.2500 %, loss 1.11843" in text or "repeats the logged result" in text
    assert "other conditions" not in text


@pytest.mark.parametrize("words", [[], ["--size", "32"]])
def test_predict_takes_the_product(words: list[str], photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    asked = ["predict", str(FINISHED), str(photos / "val" / "red"), "--format", "json", "--out", str(out), *words]
    assert main(asked) == 0
    rows = json.loads(out.read_text())
    assert len(rows) == 5
    assert {row["size"] for row in rows} == {32 if words else 48}


def test_report_takes_the_run(tmp_path: Path) -> None:
    run = shutil.copytree(FINISHED, tmp_path / "run")
    assert main(["report", str(run), "--json", str(tmp_path / "content.json")]) == 0
    assert "31.2 %" in (run / "report.html").read_text()
    (content,) = json.loads((tmp_path / "content.json").read_text())["runs"]
    assert (content["state"], content["train_size"], content["test_size"]) == ("done", 32, 48)
    rows = [(row["label"], row["top1"]) for row in content["comparison"]["rows"]]
    assert rows == [("train size", 31.25), ("larger size only", 31.25), ("fixed", 31.25)]
