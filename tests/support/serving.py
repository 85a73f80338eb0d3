"""A small served product, in this process and in one of its own."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from fixres.checkpoints.resolve import load
from fixres.config.loading import validate
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.inference.predict import Predictor
from fixres.inference.server.app import make_app
from fixres.inference.server.network import open_network
from fixres.inference.server.settings import Limits, Settings
from fixres.runtime.device import Runtime
from fixres.training.run import run_recipe

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
LIMITS = Limits(body_bytes=1 << 20, pixels=1_000_000, files=8, waiting=16, seconds=5)


def picture(seed: int = 0, size: tuple[int, int] = (90, 70)) -> Image.Image:
    """Return a smooth picture with some structure."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    """Return a picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def make_run(folder: Path) -> Path:
    """Make a run with a fix: trained at 32, fixed at 48."""
    recipe: dict[str, Any] = {
        "data": {"uri": "synthetic:classes=3,images=48,size=48", "workers": 0},
        "model": {"name": "test_resnet"},
        "optim": {"lr": 0.02},
        "train": {"size": 32, "epochs": 2, "batch_size": 16},
        "fix": {"size": 48},
        "evaluation": {"batch_size": 16},
        "output": {"tracker": "none"},
        "runtime": {"threads": 1},
    }
    run_recipe(validate(recipe), folder)
    return folder


@dataclass
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    log: list[str]

    def client(self, timeout: float = 60) -> httpx.Client:
        """Return a client of it."""
        return httpx.Client(base_url=self.url, timeout=timeout)

    def stop(self) -> int:
        """Ask it to end and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def resident_bytes(self) -> int:
        """Return its memory."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(source: Path, *words: str, environment: dict[str, str] | None = None) -> Iterator[Running]:
    """Run `fixres serve` on a free port until the block ends."""
    command = [sys.executable, "-m", "fixres", "serve", str(source), "--port", "0", *words]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**ENVIRONMENT, **(environment or {})},
    )
    log: list[str] = []
    ready = threading.Event()
    assert process.stderr is not None
    stream = process.stderr

    def read() -> None:
        for line in stream:
            log.append(line)
            if "http://" in line:
                ready.set()
        ready.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        assert ready.wait(180), log
        found = re.search(r"http://\S+", "".join(log))
        assert found, "".join(log)
        yield Running(process, found[0], log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        thread.join(10)


def message(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code of an error, whose form is checked."""
    body = answer.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"code", "message"}
    assert "Traceback" not in json.dumps(body)
    assert 'File "' not in json.dumps(body)
    return answer.status_code, body["error"]["code"]


def client_of(run: Path, token: str = "", **changes: Any) -> TestClient:
    """Return a client of a server in this process."""
    settings = Settings(source=str(run), threads=1, **{"limits": LIMITS, **changes})
    return TestClient(make_app(open_network(settings), settings, token), base_url="http://127.0.0.1:8000")


def expected(run: Path, image: Image.Image, size: int | None = None, weights: str = "fixed") -> dict[str, float]:
    """Return what `predict` says of a picture: probabilities by class."""
    product = load(run, weights)
    product = product if size is None else product.at(size)
    (found,) = Predictor(product, Runtime(RuntimeSettings(device="cpu", threads=1)))([image])
    return dict(found.top)


def named(answer: dict[str, Any]) -> dict[str, float]:
    """Return the probabilities of an answer by class."""
    return {entry["name"]: entry["probability"] for entry in answer["top"]}
