"""What verbs return: the number people ask for, and tables in which every text is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fixres.evaluation.results import Advice, Evaluated, Predicted, Predictions, Run, html_table


def result(size: int, top1: float, **fields: Any) -> dict[str, Any]:
    return {
        "size": size,
        "top1": top1,
        "top1_ci95": (top1 - 5, top1 + 5),
        "loss": 0.5,
        "ece": 0.1,
        "gmacs": 2,
        **fields,
    }


def evaluated(*results: dict[str, Any]) -> Evaluated:
    return Evaluated(
        checkpoint="run",
        data="folder:<photos>",
        split="test",
        num_images=1200,
        num_classes=2,
        results=results,
        paths=(),
        labels=np.zeros(0, dtype=np.int64),
        predictions=np.zeros((len(results), 0), dtype=np.int64),
        probabilities=np.zeros((len(results), 0)),
        remarks=(),
    )


def test_every_text_of_a_table_is_escaped() -> None:
    assert html_table("a < b", ["<th>"], [["1 & 2"], ["<td>"]]) == (
        "<table><caption>a &lt; b</caption><thead><tr><th>&lt;th&gt;</th></tr></thead>"
        "<tbody><tr><td>1 &amp; 2</td></tr><tr><td>&lt;td&gt;</td></tr></tbody></table>"
    )


def test_the_accuracy_of_a_run_is_that_of_its_product() -> None:
    rows = (result(32, 60.0, label="train size"), result(48, 55.0, label="larger size only"), result(48, 70.0))
    run = Run(Path("runs/a"), 48, "test", 1200, rows, paired=None)
    assert run.top1 == 70.0
    text = run._repr_html_()
    assert "runs/a: test, n = 1,200" in text
    assert "<td>larger size only</td><td>48</td><td>55.00</td><td>0.500</td>" in text
    assert "<td></td><td>48</td><td>70.00</td>" in text


def test_the_accuracy_of_an_evaluation_is_that_of_its_first_size() -> None:
    found = evaluated(result(48, 70.0), result(32, 60.0))
    assert found.top1 == 70.0
    text = found._repr_html_()
    assert "test of folder:&lt;photos&gt;, n = 1,200" in text
    assert text.index("<td>48</td><td>70.00</td><td>65.0 to 75.0</td>") < text.index("<td>32</td>")


def test_predictions_are_a_sequence_and_one_without_an_answer_says_why() -> None:
    best = Predicted("a.jpg", ("red", "blue"), (0.9, 0.1), 32)
    unsure = Predicted("b.jpg", ("blue", "red"), (0.6, 0.4), 32, unsure=True)
    broken = Predicted("c.jpg", (), (), 32, error="no such file")
    found = Predictions((best, unsure, broken))
    assert [one.name for one in found] == ["red", "blue", ""]
    assert (len(found), found[0], found[-1]) == (3, best, broken)
    assert found[1:] == Predictions((unsure, broken))
    assert unsure in found
    rows = found._repr_html_().split("<tr>")[2:]
    assert rows[0].startswith("<td>a.jpg</td><td>red 90.0 %, blue 10.0 %</td><td></td>")
    assert rows[1].startswith("<td>b.jpg</td><td>blue 60.0 %, red 40.0 %</td><td>unsure</td>")
    assert rows[2].startswith("<td>c.jpg</td><td>cannot be read: no such file</td><td></td>")


def test_advice_marks_what_nothing_beats_and_says_why_nothing_was_fixed() -> None:
    rows = tuple(
        {"on_front": on_front, "network": "as it is", "size": size, "view": view, "top1": 50.0, "gmacs": 1.0, "ms": 2.0}
        for on_front, size, view in ((True, 32, "crop 0.875"), (False, 64, "squash"))
    )
    advice = Advice(32, 0.875, "as it is", "the best of 2 measured", "val", 16, rows, theory={})
    text = advice._repr_html_()
    assert "as it is at 32 px: the best of 2 measured (val, n = 16)<" in text
    assert "<td>*</td><td>as it is</td><td>32</td><td>0.875</td><td>50.00</td><td>1.000</td><td>2.00</td>" in text
    assert "<td></td><td>as it is</td><td>64</td><td>squash</td>" in text
    why = Advice(32, 0.875, "as it is", "x", "val", 16, rows, theory={}, not_fixed="two heads")
    assert "(val, n = 16); nothing was fixed: two heads<" in why._repr_html_()
