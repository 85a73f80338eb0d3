"""A real Slurm trains, stops, puts the job back into its queue, and goes on as if nothing had been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = """
data: {uri: "synthetic:classes=3,images=96,size=48", workers: 0}
model: {name: test_resnet}
optim: {lr: 0.02}
ema: {enabled: true}
augment: {mixup: 0.2}
train: {size: 32, epochs: 30, batch_size: 16}
evaluation: {batch_size: 16, every_epochs: 10}
output: {tracker: none, log_every_steps: 1}
runtime: {threads: 1, device: cpu}
"""
MISSING = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(900),
    # The jobs share one Slurm, and its ports.
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: apt-get install slurm-wlm munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons are started as root"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start a Slurm of two nodes, and return the environment of its users."""
    folder = tmp_path_factory.mktemp("slurm")
    try:
        subprocess.run([ROOT / "tests" / "support" / "start_slurm", folder], check=True, timeout=120)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        yield {**inherited, "SLURM_CONF": str(folder / "slurm.conf"), "PYTHONPATH": path}
    finally:
        for file in folder.glob("*.pid"):
            os.kill(int(file.read_text()), signal.SIGTERM)


@pytest.fixture
def slurm(cluster: dict[str, str]) -> Callable[..., str]:
    """Return a function that runs one command and returns what it prints."""

    def run(*words: object) -> str:
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, env=cluster)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return run


def submit(slurm: Callable[..., str], recipe: Path, run: Path, *words: str) -> str:
    """Submit a recipe as a job and return its number."""
    options = ["--gpus-per-node", "0", "--out", run, "--submit", *words]
    said = slurm(sys.executable, "-m", "fixres", "slurm", recipe, *options)
    return said.partition("Submitted batch job ")[2].split()[0]


def state(slurm: Callable[..., str], job: str) -> dict[str, str]:
    """Return what Slurm says about a job."""
    return dict(word.split("=", 1) for word in slurm("scontrol", "show", "job", job).split() if "=" in word)


def wait_for(what: str, is_there: Callable[[], bool], run: Path, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not is_there():
        output = "".join(file.read_text() for file in run.glob("slurm-*.out"))
        assert time.monotonic() < until, f"{what} did not come within {seconds} s\n{output}"
        time.sleep(0.2)


def end(slurm: Callable[..., str], job: str, run: Path) -> dict[str, str]:
    """Wait until a job has ended, and return what Slurm says about it."""
    wait_for("the end", lambda: state(slurm, job)["JobState"] in ("COMPLETED", "FAILED", "CANCELLED"), run)
    return state(slurm, job)


def steps(run: Path) -> list[int]:
    file = run / "metrics.jsonl"
    events = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [event["step"] for event in events if event["event"] == "train"]


def test_a_job_that_is_stopped_and_requeued_ends_like_one_that_was_not(
    slurm: Callable[..., str], tmp_path: Path
) -> None:
    recipe = tmp_path / "my recipe.yaml"
    recipe.write_text(RECIPE)
    stopped, whole = tmp_path / "stopped and requeued", tmp_path / "whole"
    job = submit(slurm, recipe, stopped, "--tasks-per-node", "2", "--time", "10:00")
    wait_for("a step", lambda: len(steps(stopped)) > 8, stopped)
    slurm("scancel", "--signal=USR1", job)
    wait_for("the requeue", lambda: state(slurm, job)["JobState"] == "PENDING", stopped)

    status = json.loads((stopped / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("stopped", 75)
    assert (stopped / "checkpoints" / "last.pt").exists()
    assert not (stopped / "model").exists()
    assert state(slurm, job)["Restarts"] == "1"

    # Slurm keeps a requeued job back for two minutes. Meanwhile the same on two nodes, without a stop.
    other = submit(
        slurm, recipe, whole, "--nodes", "2", "--tasks-per-node", "1", "--setup", "export MASTER_ADDR=127.0.0.1"
    )
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now")
    for number, run in ((job, stopped), (other, whole)):
        found = end(slurm, number, run)
        assert (found["JobState"], found["ExitCode"]) == ("COMPLETED", "0:0"), (run / f"slurm-{number}.out").read_text()
        assert json.loads((run / "status.json").read_text())["state"] == "done"

    # The output of both parts is in one file, and the second says where it went on.
    said = (stopped / f"slurm-{job}.out").read_text()
    assert f"job {job} stopped with 75: back into the queue" in said
    assert f"from the checkpoint at step {status['step']}" in said.replace("\n", " ")
    assert "2 processes" in json.loads((whole / "environment.json").read_text())["device"]
    assert steps(stopped) == steps(whole)
    weights, other_weights = ((run / "model" / "model.safetensors").read_bytes() for run in (stopped, whole))
    assert weights == other_weights
    results, other_results = (json.loads((run / "model" / "config.json").read_text()) for run in (stopped, whole))
    assert results["fixres"]["results"] == other_results["fixres"]["results"]


def test_a_job_that_fails_or_is_cancelled_is_not_requeued(slurm: Callable[..., str], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    failing = submit(slurm, recipe, tmp_path / "a", "--tasks-per-node", "2", "--data.uri", str(tmp_path / "nothing"))
    cancelled = submit(slurm, recipe, tmp_path / "b", "--tasks-per-node", "2")
    wait_for("a step", lambda: bool(steps(tmp_path / "b")), tmp_path / "b")
    slurm("scancel", cancelled)
    for job, run, expected in ((failing, "a", ("FAILED", "2:0")), (cancelled, "b", ("CANCELLED", "0:15"))):
        found = end(slurm, job, tmp_path / run)
        assert (found["JobState"], found["ExitCode"]) == expected
        assert found["Restarts"] == "0"
    assert "nothing" in (tmp_path / "a" / f"slurm-{failing}.out").read_text()
