"""Promises from the run that certifies them to the predictions that use them."""

from __future__ import annotations

import csv
import html
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fixres
from fixres.checkpoints.feeding_request import Feeding
from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.errors import UserError
from fixres.evaluation.promises import COVERAGES, kept_rule
from fixres.evaluation.promises_in_words import promises_in_words
from fixres.inference.promised import promises_of
from fixres.training.product_promises import also_chosen
from tests.conftest import tiny_recipe
from tests.support.several import run_processes


def config_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "model" / "config.json").read_text())
    return content


@pytest.fixture
def own_run(fixed_run: Path, tmp_path: Path) -> Path:
    """Return a run that may be changed."""
    return shutil.copytree(fixed_run, tmp_path / "run")


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"p{number}.png" for number in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (70, 80, 3), dtype=np.uint8)).save(path)
    return list(map(str, paths))


def test_a_run_certifies_what_its_product_promises(fixed_run: Path) -> None:
    kept = config_of(fixed_run)["fixres"]["promises"]
    events = [json.loads(line) for line in (fixed_run / "metrics.jsonl").read_text().splitlines()]
    assert kept["split"] == next(event["select"] for event in events if event["event"] == "start")
    assert kept["also_chose"] == ["the epoch"]
    assert kept["num_choosing"] + kept["num_certifying"] == next(
        event["num_images"] for event in events if event["event"] == "sweep"
    )
    assert set(kept["coverage"]) == {str(coverage) for coverage in COVERAGES}


def test_what_the_selecting_split_decided_is_named() -> None:
    pull, epoch = "the strength of the head's pull", "the epoch"
    for fix, decided in (
        ({"size": 48}, [epoch, pull]),
        ({"size": 48, "decay": 0.1}, [epoch]),
        ({"size": 48, "solver": "sgd"}, [epoch]),
        ({"mix": "auto"}, [epoch, pull, "the size", "the share of the fix"]),
    ):
        assert also_chosen(tiny_recipe(fix=fix)) == decided
    assert also_chosen(tiny_recipe(evaluation={"keep": "last"})) == []


def test_another_feeding_has_no_promises(own_run: Path) -> None:
    product = load(str(own_run), feeding=Feeding(crop_ratio=1.0))
    with pytest.raises(UserError, match="promises nothing"):
        promises_of(product)


def test_the_report_says_what_is_promised(fixed_run: Path, tmp_path: Path) -> None:
    page, answer = tmp_path / "r.html", tmp_path / "r.json"
    assert main(["report", str(fixed_run), "--out", str(page), "--json", str(answer)]) == 0
    kept = config_of(fixed_run)["fixres"]["promises"]
    assert json.loads(answer.read_text())["runs"][0]["promises"] == kept
    text = page.read_text()
    for line in promises_in_words(kept):
        assert html.escape(line, quote=True).replace("&#x27;", "&#39;") in text


def test_certifying_again_finds_what_the_run_found(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = own_run / "model" / "config.json"
    before = json.loads(config.read_text())
    kept = before["fixres"].pop("promises")
    config.write_text(json.dumps(before))
    answer = tmp_path / "answer.json"
    words = ["eval", str(own_run), "--promise", "--save", "--workers", "0", "--json", str(answer)]
    assert main(words) == 0
    said = capsys.readouterr().err
    after = json.loads(config.read_text())
    found = after["fixres"].pop("promises")
    assert after == before
    assert found == json.loads(answer.read_text())["promises"]
    assert found == kept
    assert f"{kept['num_certifying']:,} pictures of {kept['split']} certify" in said
    assert "cannot be promised; no wrong one among" in said
    assert f"kept in {config}" in said


def test_predictions_say_which_classes_hold_the_right_one(
    own_run: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    product = fixres.load(own_run)
    rule = kept_rule(product.details["promises"], product.classes, 0.8)
    plain = fixres.predict(own_run, pictures, top_k=len(product.classes))
    expected = [
        [name for name, p in zip(one.names, one.probabilities, strict=True)
         if p >= 1 - rule.quantiles[product.classes.index(name)] or name == one.names[0]]
        for one in plain
    ]  # fmt: skip
    found = fixres.predict(own_run, pictures, top_k=1, coverage=0.8)
    assert [list(one.inside or ()) for one in found] == expected

    words = ["predict", str(own_run), *pictures, "--coverage", "0.8", "--workers", "0"]
    assert main([*words, "--format", "json"]) == 0
    assert [one["set"] for one in json.loads(capsys.readouterr().out)] == expected
    assert main([*words, "--format", "csv", "--top-k", "1"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert list(rows[0]) == ["path", "size", "name1", "probability1", "set", "error"]
    assert [json.loads(row["set"]) for row in rows] == expected
    assert main([*words, "--format", "csv", "--columns", "label,set"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [json.loads(row["set"]) for row in rows] == expected
    assert main(words) == 0
    assert f"  set: {', '.join(expected[0])}" in capsys.readouterr().out
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main([*words, "--out", str(tmp_path / "p.parquet")]) == 0
    assert parquet.read_table(tmp_path / "p.parquet")["set"].to_pylist() == expected


def test_a_picture_that_cannot_be_read_has_no_set(own_run: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    (found,) = fixres.predict(own_run, bad, coverage=0.9)
    assert found.error
    assert found.inside is None


def test_answers_that_are_not_sure_enough_are_marked(
    own_run: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = own_run / "model" / "config.json"
    content = json.loads(config.read_text())
    best = [one.probabilities[0] for one in fixres.predict(own_run, pictures)]
    threshold = sorted(best)[2]
    content["fixres"]["promises"]["abstain"]["0.05"] = {"threshold": threshold, "num_answered": 60, "num_wrong": 0}
    config.write_text(json.dumps(content))
    words = ["predict", str(own_run), *pictures, "--workers", "0", "--format", "json"]
    assert main([*words, "--abstain", "0.05"]) == 0
    assert [one["unsure"] for one in json.loads(capsys.readouterr().out)] == [p < threshold for p in best]
    assert [one.unsure for one in fixres.predict(own_run, pictures, abstain=0.05)] == [p < threshold for p in best]
    # Too few pictures certify this one.
    assert main([*words, "--abstain", "0.01"]) == 2
    said = capsys.readouterr().err
    assert "230 answered ones would be needed" in said
    assert "--abstain 0.05 is promised" in said


def test_what_is_not_promised_is_refused(
    own_run: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str) -> str:
        assert main(["predict", str(own_run), pictures[0], *words]) == 2
        return capsys.readouterr().err

    assert "coverage 0.93: a product keeps 0.8, 0.9, 0.95, 0.99" in refused("--coverage", "0.93")
    assert "abstain 0.5: a product keeps 0.01, 0.02, 0.05, 0.1" in refused("--abstain", "0.5")
    assert "leave --size out" in refused("--coverage", "0.9", "--size", "32")
    assert "leave --weights out" in refused("--coverage", "0.9", "--weights", "before_fix")
    assert "leave --crop-ratio 1.0 out" in refused("--coverage", "0.9", "--crop-ratio", "1.0")
    assert "leave --cascade out" in refused("--coverage", "0.9", "--cascade")
    assert "give it or --threshold" in refused("--abstain", "0.05", "--threshold", "0.4")
    config = own_run / "model" / "config.json"
    content = json.loads(config.read_text())
    del content["fixres"]["promises"]
    config.write_text(json.dumps(content))
    assert "--promise --save" in refused("--coverage", "0.9")
    with pytest.raises(UserError, match="give it or threshold"):
        fixres.predict(own_run, pictures[0], threshold=0.5, abstain=0.05)


def measure_and_keep(run: Path, words: list[str]) -> None:
    assert main(["eval", str(run), *words, "--save", "--workers", "0", "--device", "cpu", "--quiet"]) == 0


@pytest.mark.parametrize(("words", "key"), [(["--promise"], "promises"), (["--cascade", "32,48"], "cascade")])
def test_two_processes_keep_what_one_keeps(fixed_run: Path, tmp_path: Path, words: list[str], key: str) -> None:
    kept = []
    for processes in (1, 2):
        run = shutil.copytree(fixed_run, tmp_path / f"of-{processes}")
        config = run / "model" / "config.json"
        content = json.loads(config.read_text())
        content["fixres"].pop(key, None)
        config.write_text(json.dumps(content))
        assert run_processes(processes, measure_and_keep, run, words) == [None] * processes
        kept.append(config_of(run)["fixres"])
    assert key in kept[0]
    assert kept[0] == kept[1]
