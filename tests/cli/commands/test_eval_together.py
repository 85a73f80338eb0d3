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
    kept = {key: found[key] for key in ("sizes", "threshold", "chosen_on")}
    assert after["fixres"].pop("cascade") == kept | found["deferral"]
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


def test_where_both_sizes_ran_they_answer_together(fixed_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(fixed_run, tmp_path / "run")
    config = run / "model" / "config.json"
    content = json.loads(config.read_text())
    kept = {"sizes": [32, 48], "threshold": EVERY, "chosen_on": "val", "by": "confidence", "small_weight": 0.4}
    content["fixres"]["cascade"] = kept
    config.write_text(json.dumps(content))
    picture = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 80, 3), dtype=np.uint8)).save(picture)

    def answers(*words: str) -> tuple[dict[str, float], dict[str, Any]]:
        out = tmp_path / "out.json"
        assert main(["predict", str(run), str(picture), "--format", "json", "--out", str(out), *words]) == 0
        (found,) = json.loads(out.read_text())
        return {one["name"]: one["probability"] for one in found["top"]}, found

    small, _ = answers("--size", "32", "--weights", "before_fix")
    large, _ = answers()
    joined, told = answers("--cascade", "--threshold", "0.99")
    assert joined == pytest.approx({name: 0.4 * small[name] + 0.6 * large[name] for name in large}, abs=1e-6)
    assert list(joined.values()) == sorted(joined.values(), reverse=True)
    assert (told["size"], told["unsure"]) == (48, True)
    best, _ = answers("--cascade", "--top-k", "1")
    assert best == dict([next(iter(joined.items()))])


def test_a_guarantee_is_kept_where_enough_pictures_certify_it(
    fixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(fixed_run, tmp_path / "run")
    config = run / "model" / "config.json"
    before = config.read_text()
    words = ["eval", str(run), "--cascade", "32,48", "--cascade-rule", "guaranteed", "--save", "--workers", "0"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "nothing can be kept" in said
    assert "230 without a loss would be needed" in said
    # Before a picture is read.
    assert "32 px alone" not in said
    assert config.read_text() == before
    assert main([word for word in words if word != "--save"]) == 0
    said = capsys.readouterr().err
    assert "too few pictures to promise at most 1 % of the pictures lost against 48 px, with 90 % confidence" in said
    path = tmp_path / "c.json"
    assert main([*words, "--harm", "0.6", "--confidence", "0.5", "--json", str(path)]) == 0
    found = json.loads(path.read_text())["cascade"]
    told = found["guarantee"]
    assert told["is_certified"]
    assert told["num_choosing"] + told["num_certifying"] == found["num_chosen_on"]
    assert told["num_harms"] <= told["harms_allowed"]
    assert found["deferral"]["small_weight"] == 0
    assert "guaranteed: at most 60 % of the pictures lost" in capsys.readouterr().err
    assert json.loads(config.read_text())["fixres"]["cascade"]["guarantee"] == told


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--cascade-rule", "guaranteed"), "add --cascade SMALL,LARGE"),
        (("--cascade", "32,48", "--harm", "0.1"), "--cascade-rule guaranteed"),
        (("--cascade", "32,48", "--cascade-rule", "guaranteed", "--harm", "0"), "expected a number > 0 and < 1"),
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
