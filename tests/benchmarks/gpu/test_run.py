"""A measurement that hangs or fails costs its limit and is listed; what is done is not measured again."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import run as gpu
from benchmarks.gpu.plan import GPU, TOY, measurements
from benchmarks.gpu.summary import result_file, summarise
from benchmarks.gpu.training import training_recipe
from fixres.data.in_memory import can_hold
from fixres.resolution import Preprocess
from tests.support.processes import all_end_within


def python(code: str, log: Path, limit_seconds: float = 60) -> str:
    return gpu.run([sys.executable, "-c", code], log, limit_seconds)


def test_what_hangs_ends_at_its_limit_with_what_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)\nsys.stdin.read()\nwhile 1: 1"
    )
    start = time.monotonic()
    assert python(code, tmp_path / "log", 2).startswith("not done after 2 s: ")
    assert time.monotonic() - start < 30
    child = int((tmp_path / "log").read_text())
    assert all_end_within(10, [child])


def test_why_it_failed_is_the_error_and_not_the_hint_behind_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert python("pass", log) == ""
    assert python("raise ValueError('no kernel')", log) == "exit status 1: ValueError: no kernel"
    assert python("print('error: no GPU\\n  try a toy'); raise SystemExit(2)", log) == "exit status 2: error: no GPU"
    hint = "import sys; print('x.LoweringException: no gcc\\n\\nSet VERBOSE=1\\n'); sys.exit(1)"
    assert python(hint, log) == "exit status 1: x.LoweringException: no gcc"
    assert python("import os; os.abort()", log) == "exit status -6: it said nothing"


def test_only_what_is_missing_failed_or_changed_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def fake(command: list[str], log: Path, limit_seconds: float) -> str:
        name, answer = command[3], Path(command[command.index("--answer") + 1])
        begun.append(name)
        (tmp_path / "work" / "photos").mkdir(parents=True, exist_ok=True)
        answer.write_text(json.dumps({"figures": {"images_per_second": 1234.5, "note": "a note"}}))
        return "exit status 1: error: broken" if name == "eval" else ""

    monkeypatch.setattr(gpu, "run", fake)
    names = [one.name for one in measurements(TOY)]
    gpu.measure_all(tmp_path, TOY, time.monotonic() + 1000)
    assert begun == names
    table = summarise(tmp_path, measurements(TOY), TOY)
    assert "| loader | 1,234 |  |  | a note | 0 |" in table
    assert "| eval |  |  |  | **failed** exit status 1: error: broken | 0 |" in table
    assert (tmp_path / "summary.md").read_text() == table

    begun.clear()
    file = result_file(tmp_path, "study")
    other = json.loads(file.read_text())
    other["settings"]["study_epochs"] = 50
    file.write_text(json.dumps(other))
    gpu.measure_all(tmp_path, TOY, time.monotonic() + 1000)
    assert begun == ["eval", "study"]
    begun.clear()
    gpu.measure_all(tmp_path, TOY, time.monotonic() + gpu.LEAST_SECONDS - 1)
    assert begun == []


def test_the_time_that_is_left_limits_a_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(gpu, "measure", lambda one, out, scale, limit_seconds: limits.append(limit_seconds))
    monkeypatch.setattr(gpu, "PICTURES", None)
    gpu.measure_all(tmp_path, GPU, time.monotonic() + 80)
    assert max(limits) <= 80
    assert min(limits) == 75


def test_every_training_counts_steps_and_generated_pictures_are_held_in_memory() -> None:
    for scale in (GPU, TOY):
        for one in measurements(scale):
            if one.kind != "train":
                continue
            size, source = one.arguments["size"], one.arguments["source"]
            uri = f"synthetic:classes=2,images={scale.num_files}" if source == "synthetic" else "folder:photos"
            recipe = training_recipe(scale, uri, size, one.arguments["is_compiled"], 4)
            assert recipe.train.epochs * (scale.num_files // scale.batch_size) == scale.steps
            assert scale.warmup_steps + scale.lone_steps < scale.steps
            held = can_hold(scale.num_files, recipe.train, Preprocess(size), recipe.data.hold_gib)
            assert held == (source == "synthetic")
    assert len({one.name for one in measurements(GPU)}) == len(measurements(GPU)) == 12
