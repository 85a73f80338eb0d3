"""What a run folder says, and folders that are none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fixres.cli.commands.report import report
from fixres.errors import UserError
from fixres.reporting.page import read_report
from fixres.reporting.run_record import number, read_run, same_but_for_seed
from tests.support.report_pages import CLASSES, SIZES, fixed_events, result, write_run


def test_foreign_folders_are_refused_with_one_message(run: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with pytest.raises(UserError, match=r"no metrics.jsonl(?s:.*)`fixres train` wrote"):
        read_report([foreign])
    (foreign / "metrics.jsonl").write_text('{"loss": 1}\n')
    with pytest.raises(UserError, match="no event of fixres"):
        read_report([foreign])
    (foreign / "metrics.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="no event of fixres"):
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


def test_a_finished_run_says_its_sizes_its_sweeps_and_its_state(run: Path) -> None:
    record = read_run(run)
    assert (record.name, record.state, record.has_fix) == ("cells", "done", True)
    assert (record.train_size, record.test_size) == (32, 48)
    assert record.classes == CLASSES
    assert record.section("data")["license"] == "CC0"
    assert record.section("nothing_of_the_kind") == {}
    for label in ("before", "fixed"):
        sweep = record.sweep(label)
        assert sweep is not None
        assert [result["size"] for result in sweep["results"]] == list(SIZES)
    assert record.sweep("after") is None
    comparison = record.comparison
    assert comparison is not None
    assert (comparison.split, comparison.num_images, comparison.paired["difference"]) == ("test", 40, 5.0)
    row = comparison.row("fixed")
    assert row is not None
    assert row["top1"] == 85.0
    assert comparison.row("trained") is None


def test_of_events_that_come_twice_the_newest_counts(tmp_path: Path) -> None:
    again = {"event": "sweep", "label": "fixed", "split": "val", "results": [result(64, 1.0)]}
    empty = {"event": "sweep", "label": "fixed", "split": "val", "results": []}
    fix = {"event": "fix", "size": 64}
    record = read_run(write_run(tmp_path / "run", [*fixed_events(), fix, again, empty]))
    assert record.sweep("fixed") == again
    assert record.last("fix") == fix
    assert len(record.all_of("fix")) == 2


@pytest.mark.parametrize("label", ["trained", "before"])
def test_the_sweep_of_a_run_without_a_fix_is_found_as_0_1_0_called_it_too(label: str, tmp_path: Path) -> None:
    swept = {"event": "sweep", "label": label, "split": "val", "results": [result(64, 70.0)]}
    record = read_run(write_run(tmp_path / "run", [swept]))
    assert record.sweep("before") == swept
    assert not record.has_fix


def test_a_run_without_its_product_is_known_by_its_recipe_and_events(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", fixed_events())
    (folder / "model" / "config.json").write_text("{")
    (folder / "environment.json").write_text("[1]")
    (folder / "predictions.json").write_text('[{"path": "a"}, 3]')
    record = read_run(folder)
    assert (record.product, record.environment, record.predictions) == ({}, {}, ({"path": "a"},))
    assert (record.train_size, record.test_size, record.classes) == (32, 48, CLASSES)
    (folder / "recipe.yaml").write_text("[")
    start = {"event": "start", "recipe": {"train": {"size": 40}}}
    (folder / "metrics.jsonl").write_text(json.dumps(start) + "\n" + '{"event": "train", "lo')
    record = read_run(folder)
    assert (record.train_size, record.test_size, record.has_fix, record.comparison) == (40, 40, False, None)
    assert record.state == "unfinished"


def test_notes_are_those_of_the_start_those_said_later_and_the_pictures_left_out(tmp_path: Path) -> None:
    events = [
        {"event": "start", "notes": ["first"]},
        {"event": "note", "text": "second"},
        {"event": "bad_images", "num_bad_images": 2, "paths": ["a.png", "b.png"]},
        {"event": "bad_images", "num_bad_images": 3, "paths": ["b.png", "c.png"]},
    ]
    assert read_run(write_run(tmp_path / "run", events)).notes == [
        "first",
        "second",
        "Pictures that could not be read and were left out: 3 (a.png, b.png, c.png).",
    ]


@pytest.mark.parametrize(
    ("value", "known"),
    [(3, 3.0), (0.5, 0.5), (float("nan"), None), (float("inf"), None), (None, None), (True, None), ("3", None)],
)
def test_a_number_is_finite_or_none(value: object, known: float | None) -> None:
    assert number(value) == known


def test_repeats_differ_in_the_seed_and_where_they_ran(tmp_path: Path) -> None:
    one, two = (read_run(write_run(tmp_path / f"{seed}", fixed_events(), seed=seed)) for seed in (0, 1))
    other = read_run(write_run(tmp_path / "other", fixed_events(), seed=2, split_seed=5))
    elsewhere = replace(two, recipe={**two.recipe, "runtime": {"device": "cuda"}, "output": {"tracker": "none"}})
    assert same_but_for_seed([one, two])
    assert same_but_for_seed([one, elsewhere])
    assert not same_but_for_seed([one])
    assert not same_but_for_seed([one, one])
    assert not same_but_for_seed([one, other])
