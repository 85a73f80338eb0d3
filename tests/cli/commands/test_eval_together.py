"""`fixres eval` with several sizes together, and the cascade that `fixres predict` then uses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixres.cli.main import main
from fixres.inference.cascade import EVERY


def test_a_threshold_that_cannot_be_kept_is_refused_before_anything_is_measured(
    fixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: Any) -> None:
        pytest.fail("measured")

    monkeypatch.setattr("fixres.inference.cascade.measure_cascade", measure)
    words = ["--cascade", "32,48", "--save"]
    for more in (["--crop-ratio", "1.0"], ["--resize", "squash"]):
        assert main(["eval", str(fixed_run), *words, *more]) == 2
        assert f"--save does not go with {' '.join(more)}" in capsys.readouterr().err
    assert main(["eval", str(fixed_run), *words, "--weights", "before_fix"]) == 2
    assert "leave --weights out" in capsys.readouterr().err
    weights = tmp_path / "bare.safetensors"
    weights.write_bytes((fixed_run / "model" / "model.safetensors").read_bytes())
    assert main(["eval", str(weights), "--model", "test_resnet", "--data", "synthetic:classes=3", *words]) == 2
    assert f"fixres import {weights} --model test_resnet --out DIR" in capsys.readouterr().err


def test_the_commands_keep_and_use_a_cascade(
    fixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 80, 3), dtype=np.uint8)).save(picture)
    run = shutil.copytree(fixed_run, tmp_path / "run")
    assert main(["predict", str(run), str(picture), "--cascade"]) == 2
    assert "--cascade SMALL,LARGE --save" in capsys.readouterr().err
    config = run / "model" / "config.json"
    before = json.loads(config.read_text())
    path = tmp_path / "c.json"
    assert main(["eval", str(run), "--cascade", "32,48", "--save", "--json", str(path), "--workers", "0"]) == 0
    err = capsys.readouterr().err
    assert "with the weights from before the fix" in err
    assert "cascade minus 48 px" in err
    found = json.loads(path.read_text())["cascade"]
    after = json.loads(config.read_text())
    assert after["fixres"].pop("cascade") == {k: found[k] for k in ("sizes", "threshold", "chosen_on")}
    assert after == before

    for threshold, size in ((0.0, 32), (EVERY, 48)):
        after["fixres"]["cascade"] = {"sizes": [32, 48], "threshold": threshold, "chosen_on": "val"}
        config.write_text(json.dumps(after))
        assert main(["predict", str(run), str(picture), "--cascade", "--format", "json"]) == 0
        answer: Any = json.loads(capsys.readouterr().out)
        assert [p["size"] for p in answer] == [size]
        weights = ["--weights", "before_fix"] if size == 32 else []
        assert main(["predict", str(run), str(picture), "--size", str(size), "--format", "json", *weights]) == 0
        alone: Any = json.loads(capsys.readouterr().out)
        # Their batches are of other sizes, so the last bits differ.
        assert [best["name"] for best in answer[0]["top"]] == [best["name"] for best in alone[0]["top"]]
        assert answer[0]["top"][0]["probability"] == pytest.approx(alone[0]["top"][0]["probability"], abs=1e-6)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--cascade", "48,32"), "--cascade 48,32: it takes two sizes, the smaller first"),
        (("--cascade", "32"), "--cascade 32: it takes two sizes"),
        (("--ensemble-sizes", "32"), "--ensemble-sizes 32: it takes two sizes or more"),
        (("--ensemble-sizes", "32,48", "--cascade", "32,48"), "one of them"),
        (("--cascade", "32,48", "--sizes", "32"), "--sizes"),
        (("--save",), "--cascade SMALL,LARGE --save"),
        (("--promise", "--cascade", "32,48"), "one of them"),
        (("--promise", "--tta", "flip"), "--tta do not go with --promise"),
    ],
)
def test_what_makes_no_sense_is_refused(
    fixed_run: Path, words: tuple[str, ...], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(fixed_run), *words]) == 2
    assert answer in capsys.readouterr().err


def test_the_ensemble_command_prints_every_row(fixed_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(fixed_run), "--ensemble-sizes", "32,48", "--workers", "0", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["ensemble"]["sizes"] == [32, 48]
    assert "32+48" in err
    assert "mean of 2 sizes minus" in err
