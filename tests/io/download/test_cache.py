"""A file is fetched once, lies where PyTorch looks, and is the one that was asked for."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fixres.errors import UserError
from fixres.io.download.cache import checkpoint_folder, fetch
from fixres.models.released import RELEASED, fetch_released
from tests.support.file_server import CONTENT, OTHER, Get, Server, names, sha256, start_fetch


def test_a_file_comes_whole_and_once(server: Server, get: Get, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = get(progress=lambda done, total: told.append((done, total)))
    assert path == tmp_path / "net.pth"
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert names(tmp_path) == {"net.pth"}
    assert get() == path
    assert server.ranges == [None]
    assert (server.agents[0] or "").startswith("fixres")


def test_two_processes_fetch_it_once(server: Server, tmp_path: Path) -> None:
    server.cuts, server.stall = [1000], threading.Event()
    both = [start_fetch(f"{server.root}/net.pth", tmp_path) for _ in range(2)]
    deadline = time.monotonic() + 60
    while not server.ranges:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)  # the other one gets to the lock meanwhile
    assert server.ranges == [None]
    server.stall.set()
    assert [process.communicate()[1] for process in both] == [b"", b""]
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "net.pth").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


def test_the_checksum_in_a_name_counts_and_a_date_does_not(server: Server, get: Get, tmp_path: Path) -> None:
    assert get(f"net-{sha256(CONTENT)[:8]}.pth", sha256="").exists()
    with pytest.raises(UserError, match="0000abcd expected"):
        get("net-0000abcd.pth", sha256="")
    with pytest.raises(UserError, match="plain http"):
        get("net-20240131.pth", sha256="")


def test_plain_http_without_a_checksum_is_not_asked(server: Server, get: Get) -> None:
    with pytest.raises(UserError, match=r"(?s)plain http.*#sha256="):
        get(sha256="")
    assert server.ranges == []


@pytest.mark.parametrize("variable", ["FIXRES_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_and_what_is_there_is_used(
    server: Server, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(UserError, match=f"{variable} is set") as caught:
        get()
    assert f"put it at {tmp_path / 'net.pth'}" in str(caught.value)
    (tmp_path / "net.pth").write_bytes(CONTENT)
    assert get().exists()
    assert server.ranges == []
    monkeypatch.setenv(variable, "0")
    assert get("another.pth").exists()


def test_a_wrong_file_that_is_there_is_not_used(server: Server, get: Get, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(OTHER)
    with pytest.raises(UserError, match=r"(?s)is not the file that was asked for.*delete it"):
        get()
    assert (tmp_path / "net.pth").read_bytes() == OTHER


def test_a_folder_that_cannot_be_is_the_users_mistake(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        fetch(f"{server.root}/net.pth", sha256="0" * 8, folder=tmp_path / "file" / "folder")


def test_released_files_come_by_name(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    for name in ("moco_v2_800ep", "features_labels"):
        entry = replace(
            RELEASED[name], url=f"{server.root}/{RELEASED[name].url.rpartition('/')[2]}", sha256=sha256(CONTENT), md5=""
        )
        monkeypatch.setitem(RELEASED, name, entry)
    path, entry = fetch_released("MoCo-v2-800ep")
    assert (path, entry.license) == (tmp_path / "checkpoints/moco_v2_800ep_pretrain.pth.tar", "CC BY-NC 4.0")
    assert fetch_released("features_labels")[0] == tmp_path / "checkpoints/fixres_features/labels.npy"


@pytest.mark.parametrize(
    ("url", "name"), [("https://one.org/", ""), ("https://one.org/a", "../a"), ("https://a/..", "")]
)
def test_a_file_needs_a_name_of_its_own(tmp_path: Path, url: str, name: str) -> None:
    with pytest.raises(UserError, match="name of a file"):
        fetch(url, folder=tmp_path, name=name)


def test_equal_names_from_two_places_are_told_apart(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "best.pth").write_bytes(b"weights")
    # Nobody wrote down where this one came from: it was put there by hand, or by PyTorch.
    assert fetch("https://one.org/best.pth", folder=tmp_path).exists()
    (tmp_path / "best.pth.url").write_text("https://one.org/best.pth\n")
    assert fetch("https://one.org/best.pth?signature=1", folder=tmp_path).exists()
    assert fetch("https://two.org/best.pth", sha256=digest, folder=tmp_path).exists()
    with pytest.raises(UserError, match=r"came from another address: https://one\.org/best\.pth"):
        fetch("https://two.org/best.pth", folder=tmp_path)


@pytest.mark.parametrize("given", [{}, {"TORCH_HOME": "~/there"}, {"XDG_CACHE_HOME": "/cache"}])
def test_files_lie_where_pytorch_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, str]) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    expected = Path(torch.hub.get_dir()) / "checkpoints"
    assert checkpoint_folder() == expected
    monkeypatch.delitem(sys.modules, "torch.hub")
    assert checkpoint_folder() == expected


def test_a_folder_set_in_pytorch_is_heeded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    assert checkpoint_folder() == tmp_path / "checkpoints"


def test_a_download_does_not_wait_for_torch() -> None:
    code = "import sys, fixres.io.download.cache; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
