"""Trackers that are gone are refused when a recipe is checked, and the message says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixres.cli.main import main
from fixres.config.loading import load, validate
from fixres.config.recipe import DROPPED_TRACKERS
from fixres.errors import UserError

GONE = "comet_ml, aim, clearml, dvclive, swanlab were dropped; there are tensorboard, wandb, mlflow and trackio"


@pytest.mark.parametrize("tracker", [*DROPPED_TRACKERS, ["tensorboard", "aim"], ["clearml", "aim"]])
def test_a_dropped_tracker_is_one_message(tracker: Any, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(f"data: {{uri: folder:x}}\noutput: {{tracker: {tracker}}}\n")
    with pytest.raises(UserError) as refused:
        load(tmp_path / "my.yaml")
    assert f"my.yaml:2: output.tracker: {GONE} - name some of these, or none" in str(refused.value)
    assert str(refused.value).count("output.tracker") == 1
    assert "expected" not in str(refused.value)


@pytest.mark.parametrize("word", ["comet_ml", "[tensorboard, aim]"])
def test_the_command_says_so_too(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "elpv-demo", "--output.tracker", word, "--dry-run"]) == 2
    assert GONE in "".join(capsys.readouterr())


def test_an_unknown_one_is_told_what_there_is() -> None:
    with pytest.raises(UserError, match=r"expected 'tensorboard' or 'wandb' or 'mlflow' or 'trackio' or 'none'"):
        validate({"data": {"uri": "x"}, "output": {"tracker": "neptune"}})
