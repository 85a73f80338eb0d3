"""`import fixres` as in a notebook: verbs that return typed results with tables, the shipped example."""

from __future__ import annotations

import dataclasses
import inspect
import os
import runpy
import sys
import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fixres
from fixres.config.recipe import Recipe
from fixres.errors import Notice
from fixres.evaluation.results import Advice, Evaluated, Predictions, Run
from fixres.models.build import build_model

ROOT = Path(__file__).parents[1]
VERBS = ("load", "train", "fix", "evaluate", "predict", "advise", "extract", "export")
SETTINGS = {
    "data": {"uri": "synthetic:classes=3,images=60,size=48", "workers": 0},
    "model": {"name": "test_resnet"},
    "train": {"size": 32, "epochs": 1, "batch_size": 16},
    "output": {"tracker": "none"},
    "runtime": {"threads": 1},
}


@pytest.mark.parametrize("name", VERBS)
def test_verbs_say_what_they_take_and_what_goes_wrong(name: str) -> None:
    verb = getattr(fixres, name)
    text = inspect.getdoc(verb) or ""
    assert "Args:" in text
    assert "Raises:" in text
    assert "return" in typing.get_type_hints(verb)
    for parameter in inspect.signature(verb).parameters.values():
        assert f"{parameter.name}:" in text, parameter.name
    assert (ROOT / "src" / "fixres" / "py.typed").exists()


def test_predict_warns_of_what_it_passes_over(tmp_path: Path) -> None:
    torch.save(build_model("test_resnet", 2).state_dict(), tmp_path / "w.pth")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "raw.NEF").write_bytes(b"")
    Image.new("RGB", (40, 40)).save(photos / "a.avif")
    (photos / "notes.txt").write_text("words")
    with pytest.warns(Notice) as told:
        found = fixres.predict(fixres.load(tmp_path / "w.pth", model_name="test_resnet"), photos)
    assert [Path(one.path).name for one in found] == ["a.avif"]
    assert sorted(str(one.message).partition(",")[0] for one in told) == ["1 file ignored"] * 2


def test_the_verbs_one_after_the_other(
    tmp_path: Path, make_recipe: Callable[..., Recipe], capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    events = []
    run = fixres.train(None, tmp_path / "run", listeners=[events.append], **SETTINGS)
    assert isinstance(run, Run)
    assert "done" in {event["event"] for event in events}
    fixed = fixres.fix(run.folder, 48, tmp_path / "fixed", moves="head")
    assert (run.size, fixed.size, fixed.split) == (32, 48, run.split)
    assert fixed.paired is not None
    measured = fixres.evaluate(fixed.folder, sizes=(48, 32))
    assert isinstance(measured, Evaluated)
    assert measured.top1 == fixed.top1
    assert any("repeats the logged result exactly" in remark for remark in measured.remarks)
    assert measured.predictions.shape == (2, measured.num_images)
    assert 100 * (measured.predictions[0] == measured.labels).mean() == pytest.approx(measured.top1)
    assert len(measured.paths) == measured.num_images
    extracted = fixres.extract(fixed.folder, tmp_path / "arrays")
    assert np.array_equal(extracted.softmax().argmax(1), measured.predictions[0])
    advice = fixres.advise(run.folder, sizes=(32, 48), crop_ratios=(0.875,), fixed=False)
    assert isinstance(advice, Advice)
    assert advice.size in (32, 48)
    exported = fixres.export(fixed.folder, tmp_path / "net.pt2", format="torch")
    assert exported.path == tmp_path / "net.pt2"
    assert exported.path.exists()
    assert all(row.num_same_top1 + row.num_ties >= row.num_images for row in exported.agreement)
    product = fixres.load(fixed.folder)
    pixels = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    found = fixres.predict(product, [Image.fromarray(pixels), pixels, "nowhere.jpg"], threshold=1.0)
    assert isinstance(found, Predictions)
    assert found[0].probabilities == found[1].probabilities
    assert (found[0].unsure, found[0].size, found[2].name) == (True, 48, "")
    assert found[2].error == "no such file or directory"
    assert fixres.predict(product, pixels)[0].names == found[0].names
    for result in (run, fixed, measured, advice, found, exported):
        assert dataclasses.is_dataclass(result)
        assert result._repr_html_().startswith("<table>")
    # Verbs return; commands print.
    assert capfd.readouterr().out == ""


def test_names_are_escaped_in_tables_and_mistakes_are_user_errors(tmp_path: Path) -> None:
    from fixres.evaluation.results import Predicted

    shown = Predictions((Predicted("<b>.jpg", ("<script>",), (1.0,), 32),))._repr_html_()
    assert "<script>" not in shown
    assert "&lt;b&gt;.jpg" in shown
    for call in (
        lambda: fixres.train(None, tmp_path / "x", model={"name": "test_resnet"}),
        lambda: fixres.train("no-such-recipe", tmp_path / "x"),
        lambda: fixres.evaluate("nowhere"),
        lambda: fixres.predict("nowhere", "x.jpg"),
    ):
        with pytest.raises(fixres.UserError):
            call()
    assert not (tmp_path / "x").exists()


@pytest.mark.system
@pytest.mark.timeout(900)
@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_the_examples_run(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example), str(tmp_path / "out")])
    monkeypatch.setitem(os.environ, "MPLBACKEND", "agg")
    names = runpy.run_path(str(example))
    assert names["accuracy"] == pytest.approx(names["measured"].results[1]["top1"])
    assert "fixed at 80 px" in capsys.readouterr().out
