"""The report: what it claims, what it shows when something is missing, and that it needs nothing from outside."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.errors import UserError
from fixres.reporting.page import read_report, write_report
from fixres.reporting.run_record import read_run
from fixres.reporting.sections import MAX_POINTS, training_charts
from fixres.runtime.run_lock import HOLDER_FILE
from tests.support.report_pages import CLASSES, Page, answer, fixed_events, result, training_events, write_run

MAX_PAGE = 5_000_000


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


def test_names_are_text_not_markup_or_mathematics(tmp_path: Path) -> None:
    name = "_<script>alert(1)</script> $x_1$ & more"
    folder = write_run(tmp_path / "a", fixed_events())
    config = json.loads((folder / "model" / "config.json").read_text())
    config["label_names"] = [name, "$\\frac$", "b", "c"]
    (folder / "model" / "config.json").write_text(json.dumps(config))
    odd = folder.rename(tmp_path / "_$a$ & <b>")
    other = write_run(tmp_path / "plain", fixed_events(), seed=1, split_seed=3)
    page = Page(write_report([odd, other], tmp_path / "report.html"))
    assert "script" not in [tag for tag, _ in page.tags]
    assert name in page.text
    assert "_$a$ & <b>, fixed" in page.text


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
        for n in range(6_000)
    ]
    runs = []
    for seed in range(3):
        folder = write_run(tmp_path / f"run{seed}", [*long, *fixed_events()], seed, uri=f"folder:{tmp_path / 'noise'}")
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


def test_a_run_whose_process_is_gone_is_not_said_to_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", training_events("train", 0, 2))
    (folder / "status.json").write_text('{"state": "running"}')
    (folder / HOLDER_FILE).write_text("{}")
    os.utime(folder / HOLDER_FILE, (0, 0))
    found = read_report([folder])
    assert found.content()["runs"][0]["state"] == "killed"
    page = Page(found.write_html(tmp_path / "report.html"))
    assert "The run was killed before its result was measured" in page.text
    assert "--resume" in page.text


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


def test_a_run_without_a_fix_gets_an_interval(tmp_path: Path) -> None:
    comparison = {"split": "test", "num_images": 40, "rows": [{"label": "trained", **result(32, 86.0)}], "paired": None}
    folder = write_run(tmp_path / "run", [{"event": "comparison", **comparison}, {"event": "done", "seconds": 5.0}])
    assert "95 % interval: 82.0 to 90.0" in Page(write_report([folder], tmp_path / "report.html")).text


def test_tables_show_balanced_accuracy_of_uneven_classes_and_no_top5_of_few(tmp_path: Path) -> None:
    events = fixed_events()
    comparison = next(event for event in events if event["event"] == "comparison")
    for row in comparison["rows"]:
        row |= {"top5": 99.5, "balanced_accuracy": 77.7}
    pages = []
    for ratio in (1.2, 2.0):
        events[0]["imbalance"] = {"test": ratio, "val": 9.0}
        found = read_report([write_run(tmp_path / str(ratio), events)])
        pages.append(Page(found.write_html(tmp_path / f"{ratio}.html")).text)
        assert "top5" in found.content()["runs"][0]["scores"][0]["metrics"]
    assert [page.count("77.7") for page in pages] == [3, 6]
    assert ["Balanced, %" in page for page in pages] == [False, True]
    assert not any("Top-5" in page for page in pages)
