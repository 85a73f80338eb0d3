"""`fixres export --cascade`: two files and a JSON that answer like `fixres predict --cascade`, without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fixres
from fixres.cli.main import main
from fixres.inference.deferral import kept_deferral

RULES: dict[str, dict[str, Any]] = {
    "confidence": {"by": "confidence", "small_weight": 0.3},
    "gain": {
        "by": "gain",
        "small_weight": 0.0,
        "weight": [[1.0, 0.5, -1.0], [0.2, 0.1, 0.3], [-2.0, 0.4, 1.5]],
        "bias": [0.1, 0.0, -0.1],
    },
}
SUBPROCESS_ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"p{number}.png" for number in range(8)]
    for number, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 40 + 30 * number, (70, 80, 3), dtype=np.uint8)).save(path)
    return list(map(str, paths))


def keep_cascade(run: Path, **kept: Any) -> None:
    config = run / "model" / "config.json"
    content = json.loads(config.read_text())
    content["fixres"]["cascade"] = {"sizes": [32, 48], "chosen_on": "val", **kept}
    config.write_text(json.dumps(content))


def level_between(run: Path, pictures: list[str], rule: dict[str, Any]) -> float:
    """Return a level above which some pictures are and some are not, and none is close to."""
    before = fixres.load(f"{run}#before_fix")
    found = fixres.predict(before, pictures, size=32, top_k=len(before.classes))
    shares = [[dict(zip(one.names, one.probabilities, strict=True))[name] for name in before.classes] for one in found]
    levels = np.sort(kept_deferral(rule).urgency(np.array(shares)))
    place = int(np.argmax(np.diff(levels)))
    return float(levels[place] + levels[place + 1]) / 2


@pytest.mark.parametrize("name", RULES)
def test_the_files_answer_like_predict(
    name: str, fixed_run: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, rule = shutil.copytree(fixed_run, tmp_path / "run"), RULES[name]
    level = level_between(run, pictures, rule)
    keep_cascade(run, threshold=-level if name == "confidence" else level, **rule)
    out = tmp_path / "files"
    assert main(["export", str(run), "--cascade", "--out", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [Path(one["path"]).name for one in answer["exports"]] == ["small.onnx", "large.onnx"]
    assert [one["sheet"]["size"] for one in answer["exports"]] == [32, 48]
    assert [one["sheet"]["weights"] for one in answer["exports"]] == ["before_fix", "raw"]
    assert sorted(path.name for path in out.iterdir()) == [
        *("cascade.json", "large.json", "large.onnx", "run_onnx.py", "small.json", "small.onnx")
    ]

    assert main(["predict", str(run), *pictures, "--cascade", "--format", "json"]) == 0
    wanted = json.loads(capsys.readouterr().out)
    assert {one["size"] for one in wanted} == {32, 48}
    command = [sys.executable, str(out / "run_onnx.py"), str(out), *pictures, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=SUBPROCESS_ENV)
    assert done.returncode == 0, done.stderr
    classes = fixres.load(run).classes
    for line, one in zip(done.stdout.splitlines(), wanted, strict=True):
        shares = dict(zip(classes, json.loads(line)["probabilities"], strict=True))
        assert shares == pytest.approx({best["name"]: best["probability"] for best in one["top"]}, abs=2e-5)
    sized = subprocess.run([*command, "--size", "64"], capture_output=True, text=True, check=False, env=SUBPROCESS_ENV)
    assert sized.returncode == 1
    assert "a cascade has sizes of its own, [32, 48]" in sized.stderr


def test_what_a_cascade_is_not_written_with_is_refused(
    fixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str) -> str:
        assert main(["export", str(fixed_run), "--cascade", *words]) == 2
        return capsys.readouterr().err

    assert "--cascade SMALL,LARGE --save" in refused("--out", str(tmp_path / "a"))
    assert "leave --format and --int8 out" in refused("--out", str(tmp_path / "a"), "--format", "torch")
    assert "leave --size out" in refused("--out", str(tmp_path / "a"), "--size", "32")
    assert f"--out {tmp_path / 'a'}" in refused("--out", str(tmp_path / "a.onnx"))
    assert not list(tmp_path.glob("a*"))
