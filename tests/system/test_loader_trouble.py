"""Runs whose loader processes stop, die, or have no shared memory. Slow: `make test-system`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

FIXRES = [sys.executable, "-m", "fixres"]
ENDLESS = [
    *["--data.uri", "synthetic:classes=3,images=96,size=48", "--data.workers", "2", "--data.hold_gib", "0"],
    *["--model.name", "test_resnet", "--train.size", "32", "--train.batch_size", "16", "--train.epochs", "5000"],
    *["--fix.enabled", "false", "--evaluation.every_epochs", "5000", "--output.tracker", "none"],
    *["--runtime.threads", "1"],
]


@contextmanager
def training(folder: Path, *words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Train without end in a process of its own; yield it once it takes steps."""
    process = subprocess.Popen(
        [*FIXRES, "train", *ENDLESS, "--out", str(folder), *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        until = time.monotonic() + 120
        while '"event": "train"' not in _text(folder / "metrics.jsonl"):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.2)
        yield process
    finally:
        process.kill()
        process.communicate()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def loaders_of(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in _text(Path(f"/proc/{process.pid}/task/{process.pid}/children")).split()]


def step_of(folder: Path) -> int:
    return int(json.loads(_text(folder / "status.json"))["step"])


def goes_on(folder: Path) -> bool:
    """Return whether the run goes on from its checkpoint when asked to, and stops when told to."""
    start = step_of(folder)
    with training(folder, "--resume") as process:
        until = time.monotonic() + 60
        while step_of(folder) <= start and time.monotonic() < until:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        return process.wait(60) == 75 and step_of(folder) > start > 0


def test_sigterm_saves_and_ends_while_every_loader_is_stopped(tmp_path: Path) -> None:
    with training(tmp_path / "run") as process:
        for pid in loaders_of(process):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
        assert time.monotonic() - start < 30
    assert goes_on(tmp_path / "run")


@pytest.mark.parametrize(("sent", "says"), [(signal.SIGSTOP, "is stopped"), (signal.SIGKILL, "ended by SIGKILL")])
def test_a_loader_that_is_stopped_or_killed_is_named_and_the_run_is_saved(
    tmp_path: Path, sent: signal.Signals, says: str
) -> None:
    with training(tmp_path / "run", FIXRES_WAIT_SECONDS="3") as process:
        for pid in loaders_of(process):
            os.kill(pid, sent)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 2
    assert says in told
    assert "workers" in told
    assert "Traceback" not in told
    assert json.loads(_text(tmp_path / "run" / "status.json"))["state"] == "failed"
    assert goes_on(tmp_path / "run")


@pytest.mark.parametrize("size", ["64m", "1m"])
def test_small_shared_memory_is_enough(tmp_path: Path, size: str) -> None:
    """64 MB is what containers have."""
    _require_mounts()
    data = "synthetic:classes=2,images=192,size=320"
    train = [
        *["train", "--data.uri", data, "--data.workers", "8", "--data.hold_gib", "0", "--model.name", "test_resnet"],
        *["--train.size", "320", "--train.batch_size", "64", "--train.epochs", "1", "--fix.enabled", "false"],
        *["--output.tracker", "none", "--runtime.threads", "1", "--quiet", "--out", str(tmp_path / "run")],
    ]
    measure = ["eval", str(tmp_path / "run"), "--workers", "8", "--batch-size", "64"]
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(130):
        Image.new("RGB", (320, 320), (number, 0, 255 - number)).save(photos / f"{number}.png")
    predict = ["predict", str(tmp_path / "run"), str(photos), "--workers", "8", "--batch-size", "64", "--format", "csv"]
    for words in (train, measure, predict):
        line = f"mount -t tmpfs -o size={size} tmpfs /dev/shm && exec {shlex.join([*FIXRES, *words])}"
        command = ["unshare", "-m", "bash", "-c", line]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 131


def _require_mounts() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: no small /dev/shm can be had")
    mount = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    tried = subprocess.run(mount, capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"this user may not mount a small /dev/shm: {tried.stderr.decode().strip()}")
