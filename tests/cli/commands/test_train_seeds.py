"""`fixres train --seeds`: several runs, one table, and going on after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixres.cli.commands.train import count_seeds
from fixres.cli.main import main
from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.training import run


def test_several_seeds_are_one_command_that_can_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs"
    words = ["train", "--data.uri", "synthetic:classes=3,images=24,size=32", "--model.name", "test_resnet"]
    words += ["--train.size", "32", "--train.epochs", "1", "--train.batch_size", "8", "--data.workers", "0"]
    words += ["--output.tracker", "none", "--runtime.threads", "1"]
    words += ["--seed", "4", "--seeds", "2", "--out", str(out)]
    whole, ran = run.run_recipe, []

    def interrupted(recipe: Recipe, folder: Path, **rest: Any) -> Any:
        ran.append(recipe.seed)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return whole(recipe, folder, **rest)

    monkeypatch.setattr(run, "run_recipe", interrupted)
    assert main(words) == 130
    assert f"--out {out} --resume" in capsys.readouterr().err
    first = (out / "seed-4" / "metrics.jsonl").read_bytes()
    assert main([*words, "--resume"]) == 0
    assert ran == [4, 5, 4, 5]
    assert (out / "seed-4" / "metrics.jsonl").read_bytes() == first
    found = json.loads((out / "study.json").read_text())
    assert found["seeds"] == [4, 5]
    assert len(found["rows"][0]["top1"]) == 2
    assert "+-" in capsys.readouterr().err
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("text", "first", "seeds"),
    [("3", 0, [0, 1, 2]), ("2", 7, [7, 8]), ("0,5", 7, [0, 5]), ("1", 3, [3]), ("5,", 0, [5])],
)
def test_seeds_are_counted_or_named(text: str, first: int, seeds: list[int]) -> None:
    assert count_seeds(text, first) == seeds


@pytest.mark.parametrize("text", ["0", "x", "1,1", ",", "1,,", "-1"])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--seeds"):
        count_seeds(text, 0)
