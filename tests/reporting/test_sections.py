"""Classes, curves and matrices, whatever is missing or diverged."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from fixres.reporting.charts import confusion_heatmap
from fixres.reporting.page import read_report, write_report
from fixres.reporting.run_record import read_run
from fixres.reporting.sections import class_rows, most_confused, training_charts
from tests.support.report_pages import Page, fixed_events, write_run


def test_classes_and_confusions_are_counted_from_the_matrix() -> None:
    confusion = [[8, 2, 0], [1, 9, 0], [0, 0, 0]]
    rows = class_rows(confusion, [[5, 5, 0], [0, 10, 0], [0, 0, 0]], ["cat", "dog"])
    assert [row["name"] for row in rows] == ["cat", "dog", "2"]
    assert [(row["num_correct"], row["num_images"]) for row in rows] == [(8, 10), (9, 10), (0, 0)]
    assert [row["recall"] for row in rows] == [80.0, 90.0, 0.0]
    assert [row["recall_before"] for row in rows] == [50.0, 100.0, None]
    assert [row["precision"] for row in rows] == [pytest.approx(800 / 9), pytest.approx(900 / 11), None]
    assert most_confused(confusion, ["cat", "dog"]) == [("cat", "dog", 2), ("dog", "cat", 1)]


def test_diverged_and_empty_numbers_do_not_stop_the_page(tmp_path: Path) -> None:
    events = fixed_events()
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


def test_many_classes_become_a_heat_map_and_the_hardest_come_first(tmp_path: Path) -> None:
    events = fixed_events()
    confusion = [[10 if row == column else 0 for column in range(40)] for row in range(40)]
    confusion[17][17], confusion[17][3] = 1, 9
    for row in next(event for event in events if event["event"] == "comparison")["rows"]:
        row["confusion"] = confusion
    page = Page(write_report([write_run(tmp_path / "run", events)], tmp_path / "report.html"))
    assert "The 20 hardest of 40 classes" in page.text
    assert re.search(r"Precision\s+17\s+1 / 10", page.text)
    assert any("Confusion matrix of 40" in (a.get("aria-label") or "") for tag, a in page.tags if tag == "svg")


def test_many_classes_are_recounted_and_their_matrix_is_not_drawn_too_large(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", fixed_events())
    names = [f"class {number}" for number in range(150)]
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps({**config, "label_names": names}))
    events = fixed_events()
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
