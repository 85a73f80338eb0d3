"""What CONTRIBUTING.md says about adding a loss, metric, moves, format and source, from the recipe to the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixres.cli.main import main
from fixres.config.registry import LOSSES, MOVES
from fixres.data import collections
from fixres.evaluation.metrics import METRICS
from fixres.experiments.seeds import summarise
from fixres.inference.export.formats.table import FORMATS
from fixres.models.moves import SELECT
from fixres.reporting import quality
from fixres.runtime.run_folder import read_events
from fixres.training.losses import LOSS_FUNCTIONS
from tests.support import extras

TABLES: tuple[dict[str, Any], ...] = (LOSSES, LOSS_FUNCTIONS, METRICS, MOVES, SELECT, FORMATS)


@pytest.fixture
def _extras() -> Iterator[None]:
    kept, sources = [dict(table) for table in TABLES], list(collections._REGISTERED)
    extras.register()
    yield
    for table, before in zip(TABLES, kept, strict=True):
        table.clear()
        table.update(before)
    collections._REGISTERED[:] = sources


def test_both_halves_of_losses_and_moves_are_complete() -> None:
    assert LOSSES.keys() == LOSS_FUNCTIONS.keys()
    assert MOVES.keys() == SELECT.keys()


@pytest.mark.usefixtures("_extras")
@pytest.mark.parametrize("workers", ["0", "2"])
def test_one_more_of_each_goes_from_the_recipe_to_the_file(workers: str, tmp_path: Path) -> None:
    run, answer, page = tmp_path / "run", tmp_path / "eval.json", tmp_path / "report.json"
    words = "--data.uri shades:16 --model.name test_resnet --loss.name squared --train.size 32 --train.epochs 1"
    words += " --train.batch_size 8 --fix.size 48 --fix.moves heads-alone --fix.epochs 1 --output.tracker none"
    assert main(["train", *words.split(), "--data.workers", workers, "--runtime.threads", "1", "--out", str(run)]) == 0
    (fix,) = [event for event in read_events(run) if event["event"] == "fix"]
    assert (fix["plan"]["moves"], fix["solver"]) == ("heads-alone", "sgd")

    assert main(["eval", str(run), "--workers", workers, "--json", str(answer)]) == 0
    (result,) = json.loads(answer.read_text())["results"]
    low, high = result["bootstrap_ci95"]["median_confidence"]
    assert 0.5 <= low <= result["median_confidence"] <= high <= 1

    assert main(["report", str(run), "--out", str(tmp_path / "r.html"), "--json", str(page)]) == 0
    (scores, *_) = json.loads(page.read_text())["runs"][0]["scores"]
    # The report knows a metric that was registered after it was imported, as it is here.
    assert quality.METRICS is METRICS
    assert "median_confidence" in scores["metrics"]
    assert "Median confidence" in (tmp_path / "r.html").read_text()
    assert all(len(row.metrics["median_confidence"]) == 1 for row in summarise([run]).rows)

    assert main(["export", str(run), "--format", "own", "--out", str(tmp_path / "net.own"), "--quiet"]) == 0
    assert (tmp_path / "net.own").stat().st_size > 0


def test_what_is_not_registered_is_refused_with_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data.uri", "synthetic:classes=2,images=16", "--out", str(tmp_path / "r")]
    for flag, value, known in (("--loss.name", "squared", "focal"), ("--train.moves", "heads-alone", "head+stats")):
        assert main([*words, flag, value]) == 2
        assert known in capsys.readouterr().err
    assert main(["train", "--data.uri", "shades:16", "--out", str(tmp_path / "r")]) == 2
    assert "shades" in capsys.readouterr().err
