"""The report: what it claims, what it shows when something is missing, and that it needs nothing from outside."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fixres.config.defaults import complete
from fixres.config.recipe import Data
from fixres.config.yaml_text import dump
from fixres.data import transforms
from fixres.data.collections import open_collection
from fixres.errors import UserError
from fixres.reporting.gallery import NUM_PICTURES, gallery, preprocess_of
from fixres.reporting.headline import headline
from fixres.reporting.page import write_report
from fixres.reporting.run_record import read_run
from fixres.reporting.sections import training_charts

URI = "synthetic:classes=4,images=40,size=80"
CLASSES = ["0-disc", "1-square", "2-triangle", "3-ring"]
SIZES = (24, 32, 48)


def result(size: int, top1: float, **extra: Any) -> dict[str, Any]:
    """One row as the evaluation logs it."""
    return {
        "size": size,
        "resize_size": round(size / 0.875),
        "crop_ratio": 0.875,
        "interpolation": "bilinear",
        "top1": top1,
        "top1_ci95": [top1 - 4, min(100.0, top1 + 4)],
        "top5": None,
        "loss": 0.4,
        "ece": 0.03,
        "gmacs": size**2 / 10_000,
        "images_per_second": 200.0,
        **extra,
    }


def training_events(stage: str, index: int, num_epochs: int) -> list[dict[str, Any]]:
    """Two training lines and one evaluation for each epoch."""
    events: list[dict[str, Any]] = []
    for epoch in range(num_epochs):
        where = {"stage": stage, "stage_index": index}
        events += [
            {"event": "train", **where, "epoch": epoch + half, "loss": 1.0 / (1 + epoch + half), "lr": 0.1}
            for half in (0.5, 1.0)
        ]
        shown = [result(32, 60.0 + epoch)]
        events.append(
            {"event": "eval", **where, "epoch": epoch + 1, "split": "val", "weights": "raw", "results": shown}
        )
    return events


def fixed_run(ci95: tuple[float, float] = (0.5, 9.5)) -> list[dict[str, Any]]:
    """Events of a finished run with a fix."""
    confusion = [[9, 1, 0, 0], [0, 10, 0, 0], [3, 0, 7, 0], [0, 0, 0, 10]]
    sweep = {"split": "val", "num_images": 40}
    rows = [
        {"label": "train size", **result(32, 80.0, confusion=[[8, 2, 0, 0]] * 4)},
        {"label": "larger size only", **result(48, 83.0)},
        {"label": "fixed", **result(48, 85.0, confusion=confusion)},
    ]
    plan = {"moves": "head+stats", "tensors": ["fc.weight", "fc.bias"], "num_trained": 2052, "num_parameters": 11178564}
    return [
        {"event": "start", "classes": CLASSES, "notes": []},
        *training_events("train", 0, 3),
        {"event": "sweep", "label": "before", **sweep, "results": [result(s, 70.0 + s / 8) for s in SIZES]},
        {"event": "chosen", "size": 48, "why": "76.0 %, the best of 3 sizes"},
        *training_events("fix", 1, 1),
        {"event": "fix", "size": 48, "plan": {**plan, "live_norms": ["layer4.1.bn2"]}, "solver_seconds": 4.2},
        {"event": "sweep", "label": "fixed", **sweep, "results": [result(s, 68.0 + s / 4) for s in SIZES]},
        {
            "event": "comparison",
            "split": "test",
            "num_images": 40,
            "rows": rows,
            "paired": {"difference": 5.0, "ci95": list(ci95), "p_value": 0.03, "num_better": 4, "num_worse": 2},
        },
        {"event": "done", "seconds": 75.0},
    ]


def write_run(folder: Path, events: list[dict[str, Any]], seed: int = 0, **data: Any) -> Path:
    """A run folder with these events, a completed recipe and a product."""
    (folder / "model").mkdir(parents=True)
    asked = {"uri": URI, "license": "CC0", **data}
    recipe = complete({"seed": seed, "data": asked, "train": {"size": 32}, "fix": {"size": 48}})
    (folder / "recipe.yaml").write_text(dump(recipe))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    about = {"command": "fixres train my.yaml", "python": "3.11", "versions": {"torch": "2.15.0"}}
    (folder / "environment.json").write_text(json.dumps(about))
    product = {
        "label_names": CLASSES,
        "pretrained_cfg": {"interpolation": "bilinear"},
        "fixres": {"train_size": 32, "test_size": 48, "crop_ratio": 0.875, "resize": "shorter"},
    }
    (folder / "model" / "config.json").write_text(json.dumps(product))
    return folder


class Page(HTMLParser):
    """What a browser would fetch, see and read."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(self.html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "line", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("meta", "img", "br", "line", "path"):
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a fix."""
    return write_run(tmp_path_factory.mktemp("runs") / "cells", fixed_run())


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Its page."""
    out = tmp_path_factory.mktemp("out") / "deep" / "report.html"
    assert write_report([run], out) == out
    return Page(out)


def test_page_needs_nothing_from_outside(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object"), tag
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "data", "action"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#")), target
    assert not re.findall(r"url\((?!#)", page.html)
    assert "@import" not in page.html
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", page.html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_page_is_sound_html_with_names_for_all_that_is_drawn(page: Page) -> None:
    assert page.open == []
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images
    assert all(attributes.get("alt") for attributes in images)
    charts = [attributes for tag, attributes in page.tags if tag == "svg" and not attributes.get("aria-hidden")]
    assert charts
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in charts)
    anchors = [attributes["id"] for tag, attributes in page.tags if "id" in attributes and tag not in ("g", "path")]
    assert len(anchors) == len(set(anchors))


def test_page_states_the_result_the_plan_and_the_way_to_repeat_it(page: Page) -> None:
    for fact in (
        "5.0 points more than at its training size",
        "+0.5 to +9.5 points",
        "4 became right, 2 became wrong",
        "The larger size alone, without the fix, reaches 83.0 %",
        "81.0 to 89.0",
        "48 px was chosen: 76.0 %, the best of 3 sizes",
        "2,052 trained parameters of 11,178,564",
        "layer4.1.bn2",
        "licence: CC0",
        "fixres train my.yaml",
        "2.15.0",
        "1 min 15 s",
        "A picture takes 2.2 times the arithmetic at 48 px",
    ):
        assert fact in page.text, fact
    assert "not distinguishable" not in page.text


@pytest.mark.parametrize(
    ("ci95", "verdict", "words"),
    [
        ((0.5, 9.5), "better", "5.0 points more"),
        ((-1.0, 11.0), "open", "not distinguishable"),
        ((0.0, 10.0), "open", "not distinguishable"),
        ((-9.5, -0.5), "worse", "5.0 points fewer"),
    ],
)
def test_headline_is_no_stronger_than_the_interval(
    tmp_path: Path, ci95: tuple[float, float], verdict: str, words: str
) -> None:
    said = headline(read_run(write_run(tmp_path / "run", fixed_run(ci95))))
    assert said.verdict == verdict
    assert words in said.sentence
    assert ("contains 0" in said.detail) == (verdict == "open")


def test_pictures_are_what_the_network_sees(run: Path) -> None:
    record = read_run(run)
    shown = gallery(record)
    assert shown.problem == ""
    assert [len(row.pictures) for row in shown.rows] == [NUM_PICTURES] * 3
    crops = [[decode(picture.uri) for picture in row.pictures] for row in shown.rows]
    assert [row[0].shape[-1] for row in crops] == [32, 32, 48]
    assert [row.pictures[0].width_percent for row in shown.rows] == [66.67, 66.67, 100]

    split = open_collection(Data(uri=URI)).split("test")
    for row, size in ((crops[1], 32), (crops[2], 48)):
        expected = [
            transforms.evaluation_crop(split.read(index), preprocess_of(record, size)) for index in range(len(split))
        ]
        assert all(any(torch.equal(crop, other) for other in expected) for crop in row)
    assert {picture.truth for picture in shown.rows[-1].pictures} == set(CLASSES)


def decode(uri: str) -> torch.Tensor:
    """The pixels of a data: URI, [3, S, S]."""
    png = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return torch.from_numpy(np.array(Image.open(io.BytesIO(png)))).permute(2, 0, 1)


def test_training_crops_leave_the_random_state_alone_and_repeat(run: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = gallery(read_run(run)), gallery(read_run(run))
    assert torch.equal(before, torch.get_rng_state())
    assert first == second


def test_predictions_stand_below_their_pictures(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", fixed_run())
    split = open_collection(Data(uri=URI)).split("test")
    truth = CLASSES[int(split.labels[5])]
    wrong = next(name for name in CLASSES if name != truth)
    top = [{"name": wrong, "probability": 0.7}, {"name": truth, "probability": 0.3}]
    predictions = [{"path": str(split.paths[5]), "label": truth, "size": 48, "top": top}]
    (folder / "predictions.json").write_text(json.dumps(predictions))
    first = gallery(read_run(folder)).rows[-1].pictures[0]
    assert (first.truth, first.prediction, first.probability, first.is_right) == (truth, wrong, "70.0 %", False)
    page = Page(write_report([folder], tmp_path / "report.html"))
    assert f"✗ {wrong}" in page.text
    assert re.search(r"1 prediction\b", page.text)


def test_pictures_that_are_gone_are_said_to_be_gone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", fixed_run(), uri=f"folder:{tmp_path / 'moved away'}")
    page = Page(write_report([folder], tmp_path / "report.html"))
    assert "No pictures: they cannot be read any more" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert "5.0 points more" in page.text


def test_run_without_a_fix_shows_its_sizes_and_says_so(tmp_path: Path) -> None:
    rows = [{"label": "trained", **result(size, 70.0 + size)} for size in (16, 24)]
    comparison = {"event": "comparison", "split": "test", "num_images": 40, "rows": rows, "paired": None}
    folder = write_run(
        tmp_path / "run", [*training_events("train", 0, 2), comparison, {"event": "done", "seconds": 5.0}]
    )
    product = {"label_names": CLASSES, "fixres": {"train_size": 16, "test_size": 16}}
    (folder / "model" / "config.json").write_text(json.dumps(product))
    page = Page(write_report([folder], tmp_path / "report.html"))
    assert "At 16 pixels, the network is right on 86.0 % of 40 test pictures" in page.text
    assert "has no fix stage" in page.text
    assert "Measured on test (40 pictures)" in page.text
    assert "No confusion matrix has been logged" in page.text


def test_run_that_is_going_on_shows_what_there_is(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", training_events("train", 0, 2))
    for name in ("environment.json", "model/config.json", "recipe.yaml"):
        (folder / name).unlink()
    (folder / "status.json").write_text('{"state": "running"}')
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "los')
    page = Page(write_report([folder], tmp_path / "report.html"))
    for words in (
        "The run is not finished",
        "State of the run: running",
        "Last measured: 61.0 % on val at 32 pixels after epoch 2 of stage train",
        "No comparison on the report split",
        "No sweep over sizes",
        "the recipe in the run folder names no collection",
        "No fix stage has been logged",
        "No environment.json",
    ):
        assert words in page.text, words


def test_diverged_and_empty_numbers_do_not_stop_the_page(tmp_path: Path) -> None:
    events = fixed_run()
    for event in events:
        if event["event"] == "train":
            event["loss"] = float("nan")
    comparison = next(event for event in events if event["event"] == "comparison")
    comparison["rows"][1] |= {"top1": None, "top1_ci95": None, "images_per_second": None, "gmacs": None}
    folder = write_run(tmp_path / "run", events)
    assert [chart["title"] for chart in training_charts(read_run(folder))] == [
        "Loss",
        "Accuracy while training, %",
        "Learning rate",
    ]
    assert "without the fix, reaches – %" in Page(write_report([folder], tmp_path / "report.html")).text


def test_names_are_text_not_markup_or_mathematics(tmp_path: Path) -> None:
    name = "_<script>alert(1)</script> $x_1$ & more"
    folder = write_run(tmp_path / "a", fixed_run())
    config = json.loads((folder / "model" / "config.json").read_text())
    config["label_names"] = [name, "$\\frac$", "b", "c"]
    (folder / "model" / "config.json").write_text(json.dumps(config))
    odd = folder.rename(tmp_path / "_$a$ & <b>")
    other = write_run(tmp_path / "plain", fixed_run(), seed=1, split_seed=3)
    page = Page(write_report([odd, other], tmp_path / "report.html"))
    assert "script" not in [tag for tag, _ in page.tags]
    assert name in page.text
    assert "_$a$ & <b>, fixed" in page.text


def test_repeats_give_mean_and_spread_of_the_paired_difference(tmp_path: Path) -> None:
    runs = []
    for seed, difference in enumerate((1.0, 2.0, 3.0)):
        events = fixed_run((difference - 1.5, difference + 1.5))
        comparison = next(event for event in events if event["event"] == "comparison")
        comparison["paired"]["difference"] = difference
        comparison["rows"][2]["top1"] = 80.0 + difference
        runs.append(write_run(tmp_path / f"seed{seed}", events, seed=seed))
    page = Page(write_report(runs, tmp_path / "report.html"))
    assert "Over 3 seeds, fixing changes accuracy by +2.0 ± 1.0 points" in page.text
    assert "In 2 of 3 runs the run's own 95 % interval excludes 0" in page.text
    assert "82.0 ± 1.0" in page.text
    targets = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert targets <= {f"#{attributes['id']}" for tag, attributes in page.tags if "id" in attributes}
    assert {f"#run{number}-result" for number in (1, 2, 3)} <= targets

    mixed = write_run(tmp_path / "other", fixed_run(), seed=9, split_seed=4)
    page = Page(write_report([*runs, mixed], tmp_path / "mixed.html"))
    assert "Over" not in page.text.split("Results")[0]
    assert "4 runs side by side" in page.text
    for folder in [*runs, mixed]:
        assert f"{folder.name}, fixed" in page.text


def test_mistakes_are_named_and_nothing_is_lost(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(UserError, match="no run given"):
        write_report([], out)
    with pytest.raises(UserError, match="no run folder"):
        write_report([tmp_path / "nowhere"], out)
    with pytest.raises(UserError, match=r"not a run folder(?s:.*)did you mean '.*cells'"):
        write_report([run / "model"], out)
    assert out.read_text() == "old"
    with pytest.raises(UserError, match="cannot write"):
        write_report([run], run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html"]


def test_report_writes_only_its_page(run: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    write_report([run], tmp_path / "report.html")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_many_classes_become_a_heat_map_and_the_hardest_come_first(tmp_path: Path) -> None:
    events = fixed_run()
    confusion = [[10 if row == column else 0 for column in range(40)] for row in range(40)]
    confusion[17][17], confusion[17][3] = 1, 9
    for row in next(event for event in events if event["event"] == "comparison")["rows"]:
        row["confusion"] = confusion
    page = Page(write_report([write_run(tmp_path / "run", events)], tmp_path / "report.html"))
    assert "The 20 hardest of 40 classes" in page.text
    assert re.search(r"Precision\s+17\s+1 / 10", page.text)
    assert any("Confusion matrix of 40" in (a.get("aria-label") or "") for tag, a in page.tags if tag == "svg")
