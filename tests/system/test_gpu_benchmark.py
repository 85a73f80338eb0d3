"""`benchmarks/gpu.sh` measures everything at toy size, goes on where it was ended, and always prints its table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
NAMES = ["pictures", "train-jpeg-32-eager", "train-synthetic-32-compiled", "eval", "loader", "study"]


def start(out: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONPATH", None)
    command = [str(SCRIPT), "--out", str(out), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=out.parent)


def test_every_path_runs_and_a_second_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = start(out, "--toy", "--minutes", "15")
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("2 of 6"):
            first.send_signal(signal.SIGTERM)
            break
    told = first.stdout.read()
    assert first.wait() == 130
    assert "| pictures |  |  |  | 16 JPEGs; cpu" in told
    assert "| study |  |  |  | **not done** |  |" in told

    second = start(out, "--toy", "--minutes", "15")
    told = second.communicate()[0]
    assert second.returncode == 0, told
    assert "pictures" not in told.partition("| measurement")[0]
    rows = {row["name"]: row for row in json.loads((out / "summary.json").read_text())}
    assert list(rows) == NAMES
    assert all(row["status"] == "done" for row in rows.values())
    for name in NAMES[1:]:
        assert rows[name]["images_per_second"] > 0, name
    assert all(rows[name]["host_ms"] > 0 for name in NAMES[1:3])
    assert rows["study"]["solver_seconds"] > 0
    study = json.loads((out / "results" / "study.json").read_text())
    assert {"train size", "larger size only", "fixed"} <= set(study["top1"])
    assert not list(out.rglob("*.part"))


def test_without_a_gpu_nothing_is_measured(tmp_path: Path) -> None:
    process = start(tmp_path / "out")
    told = process.communicate()[0]
    assert process.returncode == 1
    assert "there is no NVIDIA GPU here" in told
    assert told.count("**not done**") == 11
