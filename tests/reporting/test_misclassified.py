"""The hardest and the most confused pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fixres.data import transforms
from fixres.data.collections import open_collection
from fixres.reporting.gallery import preprocess_of
from fixres.reporting.page import read_report, write_report
from tests.support.report_pages import Page, answer, decode, read_data


def test_the_hardest_pictures_are_those_of_the_largest_loss_as_they_are_tested(
    answered_run: Path, tmp_path: Path
) -> None:
    rows = sorted(answer(answered_run), key=lambda row: -row["fixed loss"])[:12]
    (found,) = read_report([answered_run]).findings
    assert found.mistakes is not None
    assert [case["path"] for case in found.mistakes["hardest"]] == [row["path"] for row in rows]
    split = open_collection(read_data(answered_run)).split("test")
    places = {path: index for index, path in enumerate(split.paths)}
    preprocess = preprocess_of(found.record, 48)
    for case, row in zip(found.mistakes["hardest"], rows, strict=True):
        picture = found.pictures[case["path"]]
        expected = transforms.evaluation_crop(split.read(places[case["path"]]), preprocess)
        assert torch.equal(decode(picture.uri), expected)
        assert picture.is_right == (row["label"] == row["fixed"])
        assert case["probability"] == pytest.approx(100 * row["fixed probability"])
    page = Page(write_report([answered_run], tmp_path / "report.html"))
    assert rows[0]["path"] in page.text


def test_the_most_confused_pairs_are_counted_and_shown(answered_run: Path) -> None:
    rows = answer(answered_run)
    wrong: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["fixed"] != row["label"]:
            pair = (row["label"], row["fixed"])
            wrong[pair] = wrong.get(pair, 0) + 1
    (found,) = read_report([answered_run]).findings
    assert found.mistakes is not None
    pairs = found.mistakes["confused"]
    assert {(p["label"], p["prediction"]): p["num_images"] for p in pairs} == wrong
    counts = [pair["num_images"] for pair in pairs]
    assert counts == sorted(counts, reverse=True)
    for pair in pairs:
        assert {(case["label"], case["prediction"]) for case in pair["images"]} == {(pair["label"], pair["prediction"])}
        assert {case["path"] for case in pair["images"]} <= set(found.pictures)


def test_a_flawless_run_has_no_confusions(answered_run: Path, tmp_path: Path) -> None:
    answer(answered_run, fixed=1.1)
    page = Page(write_report([answered_run], tmp_path / "r.html"))
    assert "Not one picture is called by another class's name" in page.text
