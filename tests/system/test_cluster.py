"""The commands of docs/cluster.md, with torchrun: two processes, and two agents that meet over the loopback."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fixres.cli.main import main

ROOT = Path(__file__).parents[2]
ONE_THREAD = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
}
PAGE = (ROOT / "docs" / "cluster.md").read_text()
LINES = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
RECIPE = """
data: {uri: "synthetic:classes=3,images=48,size=48", workers: 0}
model: {name: test_resnet}
optim: {lr: 0.02}
train: {size: 32, epochs: 2, batch_size: 16}
evaluation: {batch_size: 16}
output: {tracker: none}
runtime: {threads: 1, device: cpu}
"""


def command(start: str) -> list[str]:
    """Return the words of the page's command that begins with `start`."""
    (line,) = [line for line in LINES if line.startswith(start)]
    return shlex.split(line)


def launch(words: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """Start a torchrun command of the page with this Python and this source."""
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    return subprocess.Popen(
        [*launcher, *words[1:]],
        cwd=folder,
        env=ONE_THREAD,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(processes: Sequence[subprocess.Popen[str]], run: Path) -> bytes:
    """Wait for the agents, and return the weights of the run."""
    try:
        for process in processes:
            said, _ = process.communicate(timeout=400)
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert "2 processes" in json.loads((run / "environment.json").read_text())["device"]
    return (run / "model" / "model.safetensors").read_bytes()


@pytest.mark.system
@pytest.mark.timeout(900)
def test_two_machines_train_what_two_processes_on_one_train(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(RECIPE)
    one = finish([launch(command("torchrun --nproc-per-node 2 -m fixres train"), tmp_path)], tmp_path / "runs" / "two")

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [word.replace("host1:29500", f"127.0.0.1:{port}") for word in command("torchrun --nnodes 2")]
    words[words.index("--nproc-per-node") + 1] = "1"
    both = finish([launch(words, tmp_path), launch(words, tmp_path)], tmp_path / "runs" / "both")
    assert one == both


def test_the_slurm_command_of_the_page_writes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(RECIPE)
    assert main(command("fixres slurm")[1:]) == 0
    assert "#SBATCH --time=12:00:00\n" in (tmp_path / "runs" / "big" / "job.sbatch").read_text()


@pytest.mark.system
def test_two_processes_predict_the_file_that_one_predicts(trained_run: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "runs" / "two")
    words = command("torchrun --nproc-per-node 2 -m fixres predict")
    process = launch([*words, "--batch-size", "4"], tmp_path)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    alone = [sys.executable, *words[words.index("-m") : -1], "one.csv", "--batch-size", "4"]
    subprocess.run(alone, cwd=tmp_path, env=ONE_THREAD, check=True, capture_output=True)
    assert (tmp_path / "all.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + len(list(photos.rglob("*.jpg")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv", "one.csv", "photos", "runs"]


def test_every_command_of_the_page_is_tested() -> None:
    assert [line.split(" --")[0].split()[0] for line in LINES] == ["torchrun", "torchrun", "fixres", "torchrun"]
