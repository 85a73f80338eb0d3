"""What a report recounts for itself: metrics, calibration, hard and confused pictures; and its other two forms."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fixres.cli.commands.report import report
from fixres.config.recipe import Data, Recipe
from fixres.data import transforms
from fixres.data.collections import open_collection
from fixres.errors import UserError
from fixres.evaluation.metrics import Tally
from fixres.reporting.charts import confusion_heatmap, pareto_front
from fixres.reporting.gallery import data_uri, preprocess_of
from fixres.reporting.page import read_report, write_report
from fixres.reporting.per_image import Answers, Column, bins, expected_calibration_error, read_answers
from fixres.reporting.run_record import read_run
from fixres.reporting.sections import MAX_POINTS, training_charts
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe
from tests.reporting.test_page import CLASSES, SIZES, Page, decode, fixed_run, result, training_events, write_run

MAX_PAGE = 5_000_000


def answer(folder: Path, seed: int = 0, **columns: float) -> list[dict[str, Any]]:
    """Give a run of write_run a comparison.csv: mostly right, the wrong ones always called the next class."""
    chance = np.random.default_rng(seed)
    split = open_collection(read_data(folder)).split("test")
    rows = []
    for path, label in zip(split.paths, split.labels, strict=True):
        row: dict[str, Any] = {"path": path, "label": CLASSES[int(label)]}
        for name, share in {"train size": 0.7, "larger size only": 0.75, "fixed": 0.8, **columns}.items():
            is_right = chance.random() < share
            sure = float(chance.uniform(0.5, 1.0))
            row[name] = CLASSES[(int(label) + (not is_right)) % len(CLASSES)]
            row[f"{name} loss"] = round(float(-np.log(sure if is_right else (1 - sure) / 2 + 1e-6)), 6)
            row[f"{name} probability"] = round(sure, 6)
        rows.append(row)
    with (folder / "comparison.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, sorted(rows[0], key=lambda name: ("loss" in name, "probability" in name)))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def read_data(folder: Path) -> Data:
    """The data section of a run."""
    return Data.model_validate(read_run(folder).section("data"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with a fix that wrote what it answered."""
    folder = write_run(tmp_path / "cells", fixed_run())
    answer(folder)
    return folder


def test_what_is_recounted_is_what_the_run_measured(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    run_recipe(make_recipe(train={"epochs": 1}), tmp_path / "r")
    (row,) = next(e for e in read_events(tmp_path / "r") if e["event"] == "comparison")["rows"]
    answers = read_answers(read_run(tmp_path / "r"))
    assert answers is not None
    assert answers.final == "trained"
    assert 100 * answers.correct("trained").mean() == pytest.approx(row["top1"])
    assert answers.columns["trained"].losses.mean() == pytest.approx(row["loss"], abs=1e-6)
    found = bins(answers, "trained")
    assert sum(one.num_images for one in found) == len(answers.paths)
    assert expected_calibration_error(found) == pytest.approx(row["ece"], abs=1e-5)

    (scores,) = read_report([tmp_path / "r"]).content()["runs"][0]["scores"]
    assert scores["metrics"]["top1"]["ci95"] == pytest.approx(row["top1_ci95"])
    for name in ("loss", "ece", "macro_f1", "balanced_accuracy"):
        low, high = scores["metrics"][name]["ci95"]
        assert low <= high
        assert scores["metrics"][name]["value"] == row[name]


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 60))
def test_the_bins_of_any_answers_give_the_error_of_the_evaluation(seed: int, num_classes: int, num: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(num, num_classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, num_classes, (num,), generator=generator)
    tally = Tally(num_classes)
    predictions, probabilities, losses = tally.add(logits, labels)
    column = Column(predictions.numpy(), losses.numpy(), probabilities.numpy())
    names = tuple(str(k) for k in range(num_classes))
    answers = Answers(tuple(map(str, range(num))), labels.numpy(), names, {"trained": column})
    found = bins(answers, "trained")
    assert expected_calibration_error(found) == pytest.approx(tally.result()["ece"], abs=1e-9)
    for one in found:
        assert one.low <= one.confidence <= one.high + 1e-9
        assert one.ci95[0] <= one.right <= one.ci95[1]


def test_two_classes_need_no_column_of_probabilities(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", fixed_run())
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps({**config, "label_names": ["no", "yes"]}))
    text = "path,label,fixed,fixed loss\na,no,no,0.105361\nb,no,yes,1.203973\n"
    (folder / "comparison.csv").write_text(text)
    answers = read_answers(read_run(folder))
    assert answers is not None
    sure = answers.columns["fixed"].probabilities
    assert sure is not None
    assert sure.tolist() == pytest.approx([0.9, 0.7], abs=1e-5)
    (folder / "comparison.csv").write_text(text.replace("b,no", "b,perhaps"))
    answers = read_answers(read_run(folder))
    assert answers is not None
    assert answers.columns["fixed"].probabilities is None
    assert "with the probability of every prediction" in Page(write_report([folder], tmp_path / "r.html")).text


def test_the_hardest_pictures_are_those_of_the_largest_loss_as_they_are_tested(run: Path, tmp_path: Path) -> None:
    rows = sorted(answer(run), key=lambda row: -row["fixed loss"])[:12]
    (found,) = read_report([run]).findings
    assert found.mistakes is not None
    assert [case.path for case in found.mistakes.hardest] == [row["path"] for row in rows]
    split = open_collection(read_data(run)).split("test")
    places = {path: index for index, path in enumerate(split.paths)}
    preprocess = preprocess_of(found.record, 48)
    for case, row in zip(found.mistakes.hardest, rows, strict=True):
        assert case.picture is not None
        expected = transforms.evaluation_crop(split.read(places[case.path]), preprocess)
        assert torch.equal(decode(case.picture.uri), expected)
        assert case.picture.is_right == (row["label"] == row["fixed"])
        assert case.probability == pytest.approx(100 * row["fixed probability"])
    page = Page(write_report([run], tmp_path / "report.html"))
    assert rows[0]["path"] in page.text


def test_the_most_confused_pairs_are_counted_and_shown(run: Path) -> None:
    rows = answer(run)
    wrong: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["fixed"] != row["label"]:
            pair = (row["label"], row["fixed"])
            wrong[pair] = wrong.get(pair, 0) + 1
    (found,) = read_report([run]).findings
    assert found.mistakes is not None
    assert {(p.label, p.prediction): p.num_images for p in found.mistakes.pairs} == wrong
    counts = [pair.num_images for pair in found.mistakes.pairs]
    assert counts == sorted(counts, reverse=True)
    for pair in found.mistakes.pairs:
        assert {(case.label, case.prediction) for case in pair.cases} == {(pair.label, pair.prediction)}
        assert all(case.picture is not None for case in pair.cases)


def test_a_flawless_run_has_no_confusions(run: Path, tmp_path: Path) -> None:
    answer(run, fixed=1.1)
    assert "Not one picture is called by another class's name" in Page(write_report([run], tmp_path / "r.html")).text


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=12))
def test_nothing_is_cheaper_and_as_accurate_as_the_front(places: list[tuple[int, int]]) -> None:
    results = [{"gmacs": float(cost), "top1": float(top1)} for cost, top1 in places]
    front = pareto_front(results)
    for result_ in results:
        beaten = [r for r in front if r["gmacs"] <= result_["gmacs"] and r["top1"] >= result_["top1"]]
        assert beaten, result_
    for one in front:
        assert not [r for r in results if r["gmacs"] <= one["gmacs"] and r["top1"] > one["top1"]]
        assert not [r for r in results if r["gmacs"] < one["gmacs"] and r["top1"] >= one["top1"]]


def test_the_json_says_what_the_page_says(run: Path, tmp_path: Path) -> None:
    events = fixed_run()
    for event in events:
        if event["event"] == "train":
            event["loss"] = float("nan")
    (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert report([str(run), "--out", str(tmp_path / "r.html"), "--json", str(tmp_path / "r.json")]) == 0

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)["runs"][0]
    page = Page(tmp_path / "r.html")
    assert found["headline"]["sentence"] in page.text.replace("\u00a0", " ")
    assert found["comparison"]["paired"]["difference"] == 5.0
    assert [row["top1"] for row in found["comparison"]["rows"]] == [80.0, 83.0, 85.0]
    assert [r["size"] for r in found["accuracy_against_size"]["fixed"]] == list(SIZES)
    assert found["confusion"]["matrix"][2] == [3, 0, 7, 0]
    assert len(found["mistakes"]["hardest"]) == 12
    assert found["recipe"]["train"]["size"] == 32
    assert found["environment"]["versions"] == {"torch": "2.15.0"}
    for command in found["commands"]:
        assert command["line"].startswith("fixres ")
        assert command["line"] in page.text


def test_json_to_stdout_is_alone_there(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report([str(run), "--out", str(tmp_path / "r.html"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["name"] == "cells"


def test_png_writes_every_chart_and_sheet(run: Path, tmp_path: Path) -> None:
    assert report([str(run), "--out", str(tmp_path / "r.html"), "--png", str(tmp_path / "png")]) == 0
    names = {path.name for path in (tmp_path / "png").iterdir()}
    assert names == {
        *(f"accuracy-against-{what}.png" for what in ("size", "cost")),
        *(f"training-{what}.png" for what in ("loss", "accuracy-while-training", "learning-rate")),
        *(f"{what}.png" for what in ("result", "confusion", "calibration", "hardest", "most-confused")),
        "as-the-network-sees-them.png",
    }
    for path in (tmp_path / "png").iterdir():
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert pixels.std() > 5, path
        # The stand-ins by which an SVG's colours are found must not be seen in a picture.
        if path.name.startswith(("accuracy", "training", "calibration", "confusion")):
            assert not ((pixels[..., 0] == 1) & (pixels[..., 1] == 1) & (pixels[..., 2] <= 12)).any(), path


def test_runs_on_the_same_pictures_are_compared_in_pairs(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", fixed_run(), split_seed=3)
    elsewhere = write_run(tmp_path / "elsewhere", fixed_run(), uri="synthetic:classes=4,images=40,size=80,seed=9")
    rows, theirs = answer(run), answer(other, seed=1)
    gain = [(b["fixed"] == b["label"]) - (a["fixed"] == a["label"]) for a, b in zip(rows, theirs, strict=True)]
    found = read_report([run, other, elsewhere])
    first, none = found.content()["against_first"]
    assert first["difference"] == pytest.approx(100 * sum(gain) / len(gain))
    assert (first["num_better"], first["num_worse"]) == (gain.count(1), gain.count(-1))
    assert none is None
    page = Page(found.write_html(tmp_path / "page.html"))
    assert "Against cells" in page.text
    assert "The runs do not share these pictures" in page.text


@pytest.mark.parametrize("size", [16, 224, 600])
def test_pictures_fit_what_a_page_has_for_them(size: int) -> None:
    noise = torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for limit in (3_000, 40_000):
        content = base64.b64decode(data_uri(noise, limit).partition(",")[2])
        assert len(content) <= limit
        image = Image.open(io.BytesIO(content))
        assert image.width == image.height
        assert (image.format == "PNG") == (size == 16)


def test_pages_about_large_noisy_pictures_and_long_runs_stay_small(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in CLASSES:
            (tmp_path / "noise" / split / name).mkdir(parents=True)
            for number in range(10):
                pixels = generator.integers(0, 256, (400, 400, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "noise" / split / name / f"{number}.jpg", quality=95)
    long = [
        {"event": "train", "stage": "train", "stage_index": 0, "epoch": n / 100, "loss": generator.random(), "lr": 0.1}
        for n in range(20_000)
    ]
    runs = []
    for seed in range(3):
        folder = write_run(tmp_path / f"run{seed}", [*long, *fixed_run()], seed, uri=f"folder:{tmp_path / 'noise'}")
        product = json.loads((folder / "model" / "config.json").read_text())
        product["fixres"] |= {"train_size": 224, "test_size": 384}
        (folder / "model" / "config.json").write_text(json.dumps(product))
        answer(folder)
        runs.append(folder)
    (chart, *_) = training_charts(read_run(runs[0]))
    assert chart["svg"].count(" L ") + chart["svg"].count("\nL ") <= 4 * MAX_POINTS
    for some in (runs[:1], runs):
        page = write_report(some, tmp_path / "page.html")
        assert page.stat().st_size < MAX_PAGE
        assert page.read_text().count("<img") >= 30 * len(some)


def test_many_classes_are_recounted_and_their_matrix_is_not_drawn_too_large(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", fixed_run())
    names = [f"class {number}" for number in range(150)]
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps({**config, "label_names": names}))
    events = fixed_run()
    for row in next(event for event in events if event["event"] == "comparison")["rows"]:
        row["confusion"] = None
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    lines = [f"{n},{name},{names[7] if n == 3 else name},0.1,0.9" for n, name in enumerate(names)]
    (folder / "comparison.csv").write_text("\n".join(["path,label,fixed,fixed loss,fixed probability", *lines]))
    found = read_report([folder])
    page = Page(found.write_html(tmp_path / "report.html"))
    assert "The 20 hardest of 150 classes" in page.text
    assert re.search(r"Precision class 3 0 / 1", page.text)
    assert re.search(r"Pictures class 3 class 7 1", page.text)
    assert "confusion.png" not in {path.name for path in found.write_png(tmp_path / "png")}
    dense = confusion_heatmap(np.ones((100, 100), dtype=int).tolist(), "all wrong")
    assert len(dense) < 1_500_000


def test_a_half_finished_run_says_how_to_go_on(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", training_events("train", 0, 2))
    (folder / "model" / "config.json").unlink()
    (folder / "status.json").write_text('{"state": "stopped"}')
    (folder / "comparison.csv").write_text("path,label,fixed,fixed lo")
    found = read_report([folder])
    page = Page(found.write_html(tmp_path / "report.html"))
    assert f"fixres train {folder / 'recipe.yaml'} --out {folder} --resume" in page.text
    assert "fixres eval" not in page.text.split("Reproduce it")[1]
    for words in ("State of the run: stopped", "says what the network answered", "No comparison on the report split"):
        assert words in page.text, words
    content = found.content()["runs"][0]
    assert (content["comparison"], content["mistakes"], content["calibration"]) == (None, None, None)
    assert content["training"]["lines"]["Loss"]
    assert found.write_png(tmp_path / "png")


def test_foreign_folders_are_refused_with_one_message(run: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with pytest.raises(UserError, match=r"no metrics.jsonl(?s:.*)`fixres train` wrote"):
        read_report([foreign])
    (foreign / "metrics.jsonl").write_text('{"loss": 1}\n')
    with pytest.raises(UserError, match="no event of fixres"):
        read_report([foreign])
    (foreign / "metrics.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_report([foreign])
    with pytest.raises(UserError, match=rf"there are runs in it: fixres report {run}"):
        read_report([run.parent])
    with pytest.raises(UserError, match="is a file"):
        read_report([run / "recipe.yaml"])
    out = tmp_path / "page.html"
    with pytest.raises(UserError, match="there is a file of this name"):
        report([str(run), "--out", str(out), "--png", str(run / "recipe.yaml")])
    with pytest.raises(UserError, match="cannot write"):
        report([str(run), "--out", str(out), "--json", str(run / "recipe.yaml" / "x.json")])
    assert not out.exists()


def test_a_run_without_a_fix_gets_an_interval(tmp_path: Path) -> None:
    comparison = {"split": "test", "num_images": 40, "rows": [{"label": "trained", **result(32, 86.0)}], "paired": None}
    folder = write_run(tmp_path / "run", [{"event": "comparison", **comparison}, {"event": "done", "seconds": 5.0}])
    assert "95 % interval: 82.0 to 90.0" in Page(write_report([folder], tmp_path / "report.html")).text
