"""`hf-hub:` and timm's published weights through the real client, against a server that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save
from torch import nn

from fixres.cli.main import main

REPOSITORY = "somebody/test_resnet.flowers"
COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """Serves the files of one model, with what the client needs to know of them in the headers."""

    files: dict[str, bytes]
    broken: set[str]

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        name = self.path.rpartition("/")[2].partition("?")[0]
        content = self.files.get(name)
        if content is None or REPOSITORY not in self.path:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if REPOSITORY in self.path else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0] or 0)
        self.send_response(206 if start else 200)
        self.send_header("ETag", hashlib.sha256(content).hexdigest())
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_body and name in self.broken:
            self.broken.discard(name)
            self.wfile.write(content[start : start + len(content) // 3])
            self.wfile.flush()
            self.connection.close()
        elif with_body:
            self.wfile.write(content[start:])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=3).eval()


@pytest.fixture
def hub(model: nn.Module, tmp_path: Path) -> Iterator[tuple[str, type[Hub]]]:
    folder = tmp_path / "pushed"
    timm.models.save_for_hf(model, folder, model_config={"label_names": ["daisy", "rose", "tulip"]})
    handler = type("Handler", (Hub,), {"files": {p.name: p.read_bytes() for p in folder.iterdir()}, "broken": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def run(argv: list[str], tmp_path: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: the client reads its address when it is imported."""
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        [sys.executable, "-m", "fixres", *argv],
        env={**clean, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def go_offline(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Let the client of this process work as if it had been imported with HF_HUB_OFFLINE=1 and HF_HOME."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))


def test_a_model_on_the_hub_is_fetched_imported_and_kept(
    hub: tuple[str, type[Hub]], model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, handler = hub
    handler.broken.add("model.safetensors")
    argv = ["import", f"hf-hub:{REPOSITORY}", "--out"]
    done = run([*argv, str(tmp_path / "a")], tmp_path, endpoint)
    assert done.returncode == 0, done.stderr
    theirs = timm.create_model(f"local-dir:{tmp_path / 'a'}", pretrained=True).eval()
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(theirs(images), model(images))
    assert theirs.pretrained_cfg["label_names"] == ["daisy", "rose", "tulip"]
    handler.files = {}
    go_offline(monkeypatch, tmp_path / "hf")
    assert main([*argv, str(tmp_path / "b")]) == 0
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("is_there", [True, False])
def test_heads_of_further_sizes_are_fetched_and_one_that_is_not_there_is_told(
    hub: tuple[str, type[Hub]], model: nn.Module, tmp_path: Path, is_there: bool
) -> None:
    endpoint, handler = hub
    head = {name: tensor + 1 for name, tensor in model.state_dict().items() if name.startswith("fc.")}
    config = json.loads(handler.files["config.json"])
    config["fixres"] = {"sizes": {"64": {"file": "sizes/064.safetensors"}}}
    handler.files = handler.files | {"config.json": json.dumps(config).encode()}
    if is_there:
        handler.files["064.safetensors"] = save(head)
    done = run(["import", f"hf-hub:{REPOSITORY}", "--out", str(tmp_path / "a")], tmp_path, endpoint)
    assert done.returncode == 0, done.stderr
    copied = tmp_path / "a" / "sizes" / "064.safetensors"
    assert copied.exists() == is_there
    assert ("sizes/064.safetensors is missing" in done.stderr) != is_there
    if is_there:
        assert all(torch.equal(tensor, head[name]) for name, tensor in load_file(copied).items() if name in head)


def test_a_hub_that_does_not_answer_is_told_in_one_line_and_what_is_cached_needs_none(
    hub: tuple[str, type[Hub]], tmp_path: Path
) -> None:
    argv = ["import", f"hf-hub:{REPOSITORY}", "--out"]
    assert run([*argv, str(tmp_path / "a")], tmp_path, hub[0]).returncode == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
        refused = run(["import", "timm:resnet10t", "--out", str(tmp_path / "o")], tmp_path, dead)
        cached = run([*argv, str(tmp_path / "b")], tmp_path, dead)
    assert refused.returncode == 2
    assert f"{dead} does not answer: not within 5 s" in refused.stderr.splitlines()[0]
    # The client alone tries five times, each after a longer wait, and says so.
    assert "Retry" not in refused.stderr + cached.stderr
    assert cached.returncode == 0, cached.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf-hub:nobody/nothing", "put both into one folder, and give the folder"),
        ("timm:resnet18.a1_in1k", "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors"),
    ],
)
def test_what_cannot_be_fetched_says_where_it_is_and_where_to_put_it(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go_offline(monkeypatch, tmp_path / "hf")
    assert main(["import", source, "--out", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "o").exists()


def test_a_malformed_hub_name_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["import", "hf-hub:a/b/c", "--out", str(tmp_path / "o")]) == 2
    assert "give hf-hub:ORGANISATION/NAME" in capsys.readouterr().err
