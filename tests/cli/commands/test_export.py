"""`fixres export`: what it compares on, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest


def test_the_command_compares_on_pictures_given_and_prints_what_it_found(
    make_recipe: Callable[..., Any], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fixres.cli.main import main
    from fixres.training.run import run_recipe

    recipe = make_recipe(data={"uri": str(photos)}, train={"epochs": 1, "size": 64})
    run_recipe(recipe, tmp_path / "run")
    words = ["export", str(tmp_path / "run"), "--format", "torch", "--json"]
    assert main([*words, "--out", str(tmp_path / "a.pt2")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["compared_on"].startswith("10 pictures of the val split of ")
    assert all(row["num_same_top1"] == row["num_images"] for row in answer["agreement"])
    assert answer["sheet"]["checkpoint"] == "run/model"
    assert main([*words, "--out", str(tmp_path / "b.pt2"), "--pictures", str(photos / "val" / "red")]) == 0
    assert json.loads(capsys.readouterr().out)["compared_on"] == "5 pictures given"
    assert main([*words, "--out", str(tmp_path / "c.pt2"), "--pictures", "nowhere.jpg"]) == 2
    assert not (tmp_path / "c.pt2").exists()


@pytest.mark.parametrize("gap", [0.0, 0.5])
def test_a_file_that_other_programs_compute_otherwise_is_warned_of(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, gap: float
) -> None:
    from fixres.cli.main import main
    from fixres.inference.export.formats.openvino import OPENVINO
    from fixres.inference.export.formats.table import FORMATS

    def ordinary(path: Path, threads: int) -> Any:
        text, run = OPENVINO.openers["openvino"](path, threads)
        return text, lambda images: run(images) + gap

    monkeypatch.setitem(FORMATS, "openvino", replace(OPENVINO, ordinary=ordinary))
    out = tmp_path / "net.xml"
    assert main(["export", str(trained_run), "--format", "openvino", "--out", str(out), "--json"]) == 0
    told = capsys.readouterr()
    assert max(row["max_difference"] for row in json.loads(told.out)["ordinary"]) == pytest.approx(gap, abs=0.01)
    hint = f'compile_model("{out}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})'
    assert (hint in told.err) is (gap > 0)
    assert out.with_name("run_openvino.py").exists()
