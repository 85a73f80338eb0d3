"""`fixres data download`: official files from where they are served, gone on with, and the right ones."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixres.data.prepare.known_sets import SETS
from fixres.data.prepare.official_archives import download
from fixres.data.prepare.writer import prepare
from fixres.errors import UserError
from tests.support import archive_makers as made
from tests.support.file_server import Server
from tests.support.known_sets import shrink_cub


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.stop()


@pytest.fixture
def served(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Return a function that lets the table say that CUB's archive, of this content, is had from the server."""
    monkeypatch.delenv("FIXRES_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("fixres.io.download.range_client.BACK_OFF_SECONDS", 0.0)
    monkeypatch.setitem(SETS, "cub-200-2011", SETS["cub-200-2011"])

    def serve(content: bytes) -> None:
        shrink_cub({"CUB_200_2011.tgz": content})
        info = SETS["cub-200-2011"]
        url = f"{server.root}/files/CUB_200_2011.tgz"
        archive = dataclasses.replace(info.files["archive"], url=url, megabytes=1)
        SETS["cub-200-2011"] = dataclasses.replace(info, files={**info.files, "archive": archive})
        server.content = content

    return serve


def test_a_set_is_fetched_resumed_and_prepared(server: Server, served: Callable[[bytes], None], tmp_path: Path) -> None:
    served(made.cub()["CUB_200_2011.tgz"])
    server.cuts = [500]
    told: list[tuple[str, int, int | None]] = []
    paths = download("cub", tmp_path / "got", lambda *row: told.append(row))
    assert paths == [tmp_path / "got" / "CUB_200_2011.tgz"]
    assert server.ranges == [None, "bytes=500-"]
    assert told[-1] == ("fetching CUB_200_2011.tgz", len(server.content), len(server.content))
    assert download("cub", tmp_path / "got") == paths
    assert len(server.ranges) == 2
    assert prepare("cub", tmp_path / "got", tmp_path / "out").is_complete


def test_a_wrong_file_is_not_kept(server: Server, served: Callable[[bytes], None], tmp_path: Path) -> None:
    served(made.cub()["CUB_200_2011.tgz"])
    server.content = b"something else"
    with pytest.raises(UserError, match="has been removed"):
        download("cub", tmp_path / "got")
    assert not (tmp_path / "got" / "CUB_200_2011.tgz").exists()


def test_offline_and_full_disks_are_said(
    server: Server, served: Callable[[bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(made.cub()["CUB_200_2011.tgz"])
    with monkeypatch.context() as patch:
        patch.setenv("FIXRES_OFFLINE", "1")
        with pytest.raises(UserError, match=r"(?s)FIXRES_OFFLINE is set.*put it at .*CUB_200_2011\.tgz"):
            download("cub", tmp_path / "got")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("fixres.data.prepare.official_archives.shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"needs about 0\.0 GB"):
        download("cub", tmp_path / "got")
    assert server.ranges == []
