"""Downloads against a real server on this machine: broken off, changed in between, refused, wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixres.errors import UserError
from fixres.io.download import address, cache, range_client, transfer
from fixres.io.download.cache import fetch
from tests.support.file_server import CONTENT, OTHER, Get, Server, names, sha256, start_fetch


def leave_part(folder: Path, url: str, content: bytes, **record: Any) -> None:
    (folder / "net.pth.part").write_bytes(content)
    (folder / "net.pth.part.json").write_text(json.dumps({"url": url, **record}))


@pytest.mark.parametrize("says_length", [True, False])
def test_a_transfer_that_breaks_off_goes_on(server: Server, get: Get, says_length: bool) -> None:
    server.cuts = [40_000, 100_000]
    server.says_length = says_length
    if not says_length:
        # Its end is then all there is to go by, and the checksum tells that it came too soon.
        with pytest.raises(UserError, match="has been removed"):
            get()
        return
    assert get().read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=40000-", "bytes=140000-"]


def test_after_five_interruptions_the_part_is_kept_for_the_next_run(server: Server, get: Get, tmp_path: Path) -> None:
    server.cuts = [1000] * 5
    with pytest.raises(UserError, match=r"(?s)broke off 5 times.*5000 of 300000 bytes are kept.*run the same again"):
        get()
    assert (tmp_path / "net.pth.part").read_bytes() == CONTENT[:5000]
    assert get().read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=5000-"
    assert names(tmp_path) == {"net.pth"}


def test_a_killed_process_leaves_what_the_next_goes_on_from(server: Server, get: Get, tmp_path: Path) -> None:
    server.cuts, server.stall = [123_456], threading.Event()
    process = start_fetch(f"{server.root}/net.pth", tmp_path)
    part = tmp_path / "net.pth.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size == 123_456):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "net.pth").exists()
    assert get().read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=123456-"]


def test_a_server_that_knows_no_ranges_begins_again(server: Server, get: Get) -> None:
    server.cuts, server.heeds_range = [70_000], False
    assert get().read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=70000-"]


@pytest.mark.parametrize(
    ("etag", "last_modified", "condition"),
    [('"one"', "yesterday", '"one"'), ('W/"one"', "yesterday", "yesterday"), ('W/"one"', None, None)],
)
def test_the_rest_is_asked_of_the_same_bytes_only(
    server: Server, get: Get, etag: str, last_modified: str | None, condition: str | None
) -> None:
    server.etag, server.last_modified, server.cuts = etag, last_modified, [70_000]
    assert get().read_bytes() == CONTENT
    assert server.conditions == [None, condition]


def test_a_piece_from_another_place_is_not_taken(server: Server, get: Get) -> None:
    server.cuts, server.shift = [70_000], 10
    assert get().read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=70000-", None]


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("validator", ["etag", "last_modified", "weak"])
def test_two_versions_are_never_joined(
    server: Server, get: Get, tmp_path: Path, heeds_if_range: bool, validator: str
) -> None:
    old = {"etag": ('"one"', None), "last_modified": (None, "Mon, 01 Jan 2024 00:00:00 GMT"), "weak": ('W/"one"', None)}
    server.etag, server.last_modified = old[validator]
    server.heeds_if_range = heeds_if_range
    server.cuts = [10_000] * 5
    with pytest.raises(UserError, match="broke off"):
        get()
    kept = (tmp_path / "net.pth.part").read_bytes()
    assert CONTENT.startswith(kept)
    server.content = OTHER
    server.etag = server.etag and server.etag.replace("one", "two")
    server.last_modified = server.last_modified and "Tue, 02 Jan 2024 00:00:00 GMT"
    assert get().read_bytes() == OTHER


@pytest.mark.parametrize(
    ("record", "ranges"),
    [
        pytest.param({"total": len(CONTENT)}, [], id="known to be whole"),
        pytest.param({"total": None}, [f"bytes={len(CONTENT)}-"], id="the server says that this is all"),
    ],
)
def test_a_part_that_is_already_whole_is_not_fetched_again(
    server: Server, get: Get, tmp_path: Path, record: dict[str, Any], ranges: list[str]
) -> None:
    leave_part(tmp_path, f"{server.root}/net.pth", CONTENT, etag='"one"', **record)
    assert get().read_bytes() == CONTENT
    assert server.ranges == ranges


@pytest.mark.parametrize("fault", ["longer than the file", "of another address", "with a damaged record"])
def test_a_part_that_does_not_belong_is_dropped(server: Server, get: Get, tmp_path: Path, fault: str) -> None:
    url = "http://127.0.0.1/another.pth" if "address" in fault else f"{server.root}/net.pth"
    leave_part(tmp_path, url, CONTENT + b"more" if "longer" in fault else OTHER[:100], etag='"one"', total=None)
    if "damaged" in fault:
        (tmp_path / "net.pth.part.json").write_text('{"url": ')
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_file_is_removed(get: Get, tmp_path: Path, kind: str) -> None:
    found = hashlib.new(kind, CONTENT).hexdigest()
    with pytest.raises(UserError, match=rf"(?s)0{{12}} expected, {found} found.*has been removed"):
        get(**{"sha256": "", kind: "0" * 12})
    assert names(tmp_path) == set()


def test_checksums_may_be_prefixes_in_any_case(get: Get) -> None:
    assert get("a.pth", sha256=sha256(CONTENT)[:8].upper()).exists()
    assert get("b.pth", sha256="", md5=hashlib.md5(CONTENT).hexdigest()[:8]).exists()


@pytest.mark.parametrize("absolute", [True, False])
def test_redirects_are_followed_with_the_range(server: Server, get: Get, absolute: bool) -> None:
    server.redirects = {"/net.pth": (server.root if absolute else "") + "/hop", "/hop": "/store/1234"}
    server.cuts = [50_000]
    assert get().name == "net.pth"
    assert server.ranges == [None, "bytes=50000-"]


@pytest.mark.parametrize(
    ("redirects", "said"),
    [
        ({"/net.pth": "/net.pth"}, "from one address to the next"),
        ({"/net.pth": "/a"} | {f"/{a}": f"/{b}" for a, b in zip("abcdef", "bcdefg", strict=True)}, "one address to"),
        ({"/net.pth": "ftp://127.0.0.1/net.pth"}, "not safe"),
        ({"/net.pth": "file:///etc/passwd"}, "from one address to the next"),
    ],
)
def test_redirects_that_lead_nowhere_are_refused(
    server: Server, get: Get, redirects: dict[str, str], said: str
) -> None:
    server.redirects = redirects
    with pytest.raises(UserError, match=said):
        get()
    assert server.ranges == []


@pytest.mark.parametrize(
    ("status", "said", "requests"),
    [
        (404, "no such file", 1),
        (410, "no such file", 1),
        (403, "does not give it", 1),
        (400, "HTTP 400", 1),
        (204, "instead of the file", 1),
        (503, "broke off 5 times", 5),
        (429, "broke off 5 times", 5),
    ],
)
def test_refusals_have_their_own_words(server: Server, get: Get, status: int, said: str, requests: int) -> None:
    server.statuses = [status] * 9
    with pytest.raises(UserError, match=said) as caught:
        get()
    assert f"{server.root}/net.pth" in str(caught.value)
    assert len(server.ranges) == requests


def test_a_busy_server_is_asked_again_and_a_packed_answer_refused(server: Server, get: Get) -> None:
    server.statuses = [503, 500]
    assert get().read_bytes() == CONTENT
    server.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(UserError, match="packed"):
        get("other.pth")


def test_no_connection_says_where_to_put_the_file(server: Server, tmp_path: Path) -> None:
    other = Server()
    other.server_close()
    with pytest.raises(UserError, match="no connection") as caught:
        fetch(f"{other.root}/net.pth", sha256="0" * 8, folder=tmp_path)
    assert f"put it at {tmp_path / 'net.pth'}" in str(caught.value)


def test_a_silent_server_is_given_up(server: Server, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_client, "TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(range_client, "RETRIES", 1)
    server.cuts, server.stall = [1000, 1000], threading.Event()
    with pytest.raises(UserError, match=r"(?s)broke off 2 times \(TimeoutError.*2000 of 300000"):
        get()


def test_the_origin_is_written_down_where_no_checksum_tells(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only https may go without a checksum, and this server has no certificate.
    monkeypatch.setattr(cache, "require_checksums", lambda *_: address.Checksums("", ""))
    fetch(f"{server.root}/net.pth?signature=1", folder=tmp_path)
    assert (tmp_path / "net.pth.url").read_text() == f"{server.root}/net.pth\n"
    server.says_length = False
    with pytest.raises(UserError, match="nothing tells whether it came whole"):
        fetch(f"{server.root}/other.pth", folder=tmp_path)


def test_no_room_is_said_before_a_byte_is_written(
    server: Server, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: SimpleNamespace(free=1234))
    with pytest.raises(UserError, match=r"300000 more bytes are needed.*1234 are free"):
        get()
    assert (tmp_path / "net.pth.part").read_bytes() == b""


def test_a_disk_that_fills_up_leaves_a_part_that_goes_on(
    server: Server, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(file: Any, chunk: bytes) -> None:
        file.write(chunk[:777])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_write_whole", write)
        with pytest.raises(UserError, match="the disk is full; 777 bytes are kept"):
            get()
    assert get().read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=777-"]


@pytest.mark.parametrize("says_length", [True, False])
def test_nothing_larger_than_the_limit_is_kept(
    server: Server, get: Get, tmp_path: Path, says_length: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "MAX_BYTES", 1000)
    server.says_length = says_length
    with pytest.raises(UserError, match="at most 1000 are fetched"):
        get()
    assert names(tmp_path) == set()


def test_what_goes_wrong_in_the_progress_is_not_taken_for_the_network(server: Server, get: Get) -> None:
    def show(done: int, total: int | None) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        get(progress=show)
    assert server.ranges == [None]
