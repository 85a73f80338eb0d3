"""Shards in object stores: memory:// stands for s3:// and gs://, which fsspec opens in the same way."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.collections import Collection, absolute_uri, open_collection
from fixres.data.decode import BadImage
from fixres.data.loader import ReadPolicy, evaluation_batches
from fixres.data.shards import remote
from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.io.download import address, cache, range_client
from fixres.resolution import Preprocess

NAMES = ("train", "val", "test")
BRACES = "{train,val,test}-{0000..0001}.tar"


class Store(MemoryFileSystem):
    """Files in memory that fail as often as a test asks for, and only serve the process that asked for them."""

    protocol = "stored"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    failures: ClassVar[list[Exception]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.process = os.getpid()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.removeprefix("stored://"))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        assert self.process == os.getpid(), "carried over a fork"
        if self.failures:
            raise self.failures.pop(0)
        return bytes(super().cat_file(path, start, end, **kwargs))


def shard(numbers: range) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number in numbers:
            picture = io.BytesIO()
            Image.new("RGB", (8, 6), (number, 0, 0)).save(picture, "PNG")
            for ending, content in (("png", picture.getvalue()), ("cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{number:05}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def shards() -> Iterator[tuple[str, bytes]]:
    """Yield names and contents: two shards of ten pictures for each split."""
    for place, name in enumerate(NAMES):
        for number in range(2):
            first = 20 * place + 10 * number
            yield f"{name}-{number:04}.tar", shard(range(first, first + 10))


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(range_client, "BACK_OFF_SECONDS", 0.01)
    remote._require_version.cache_clear()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a file system in whose bucket lie six shards and the names of their classes."""
    register_implementation("stored", Store, clobber=True)
    Store.clear_instance_cache()
    for name, empty in (("store", {}), ("pseudo_dirs", [""]), ("failures", [])):
        monkeypatch.setattr(Store, name, empty)
    system = Store()
    for name, content in shards():
        system.pipe_file(f"/bucket/set/{name}", content)
    system.pipe_file("/bucket/set/classes.txt", b"even\nodd\n")
    return system


def opened(uri: str) -> Collection:
    return open_collection(Data(uri=uri))


def told(uri: str) -> str:
    with pytest.raises(UserError) as caught:
        opened(uri)
    return str(caught.value)


def value(split: Split, place: int) -> int:
    return split.read(place).getpixel((0, 0))[0]  # type: ignore[index]


def values(split: Split) -> list[int]:
    return [value(split, place) for place in range(len(split))]


@pytest.mark.parametrize(
    "pattern",
    ["", "/*.tar", f"/{BRACES}", "?train=train-*.tar&val=val-{0000..0001}.tar&test=test-*.tar"],
)
@pytest.mark.usefixtures("bucket")
def test_a_bucket_is_named_as_a_folder_is(pattern: str) -> None:
    uri = f"wds:stored://bucket/set{pattern}"
    collection = opened(uri)
    assert absolute_uri(uri) == uri == collection.uri
    assert (collection.classes, collection.select, collection.report) == (("even", "odd"), "val", "test")
    for place, name in enumerate(NAMES):
        assert values(collection.split(name)) == list(range(20 * place, 20 * place + 20))
    assert collection.split("train").paths[11] == "train-0001.tar/00011.png"
    assert any("indexed 60 pictures in 6 shards" in note for note in collection.notes)
    assert not any("indexed" in note for note in opened(uri).notes)


@pytest.mark.usefixtures("bucket")
def test_workers_open_the_store_themselves_and_read_the_same() -> None:
    split = opened("wds:stored://bucket/set").split("train")
    # The main process has read from it before it forks.
    assert value(split, 3) == 3
    found = [
        torch.cat([views[0] for views, _, _ in evaluation_batches(split, [Preprocess(8)], 3, ReadPolicy(workers))])
        for workers in (0, 2)
    ]
    assert len(found[0]) == 20
    assert torch.equal(found[0], found[1])


def test_a_store_that_fails_for_a_moment_is_asked_again(bucket: Store) -> None:
    split = opened("wds:stored://bucket/set").split("val")
    bucket.failures += [OSError("slow down"), TimeoutError("too late")]
    assert value(split, 5) == 25
    bucket.failures += [OSError("slow down")] * 9
    with pytest.raises(BadImage, match=r"its shard cannot be read \(OSError: slow down"):
        split.read(5)
    bucket.failures.clear()
    bucket.failures += [PermissionError("no key"), RuntimeError("not asked")]
    with pytest.raises(BadImage, match="PermissionError: no key"):
        split.read(5)
    assert len(bucket.failures) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_changes_is_refused(bucket: Store, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    uri = "wds:stored://bucket/set"
    split = opened(uri).split("val")
    assert value(split, 0) == 20
    bucket.pipe_file("/bucket/set/val-0000.tar", shard(range(30, 40)))
    if not workers:
        # What a process found holds for some minutes; a worker asks itself.
        monkeypatch.setattr(remote, "_ASKED_AGAIN_SECONDS", 1e-9)
    with pytest.raises(BadImage, match="has changed on its server since the index was made"):
        list(evaluation_batches(split, [Preprocess(8)], 3, ReadPolicy(workers)))
    bucket.pipe_file("/bucket/set/val-0000.tar", shard(range(30, 39)))
    again = opened(uri)
    assert values(again.split("val")) == [*range(30, 39), *range(30, 40)]
    assert any("did not match val-0000.tar" in note for note in again.notes)


def test_a_shard_that_is_gone_or_missing_is_never_passed_over(bucket: Store) -> None:
    uri = "wds:stored://bucket/set"
    opened(uri)
    assert len(opened(f"{uri}/{{train,val,test}}-0000.tar").split("train")) == 10
    bucket.rm_file("/bucket/set/train-0001.tar")
    assert "the index lists train-0001.tar, which is gone" in told(uri)
    assert "train-0001.tar cannot be read: there is no such file" in told(f"{uri}/{BRACES}")
    assert "no shards match stored://bucket/other/*.tar" in told("wds:stored://bucket/other/*.tar")


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_missing_package_names_the_extra(protocol: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for pattern in ("set", "set/train-0000.tar"):
        message = told(f"wds:{protocol}://bucket/{pattern}")
        assert message == (
            f"this needs the package '{package}', which is not installed\n  pip install 'fixres[remote]'"
        )


def test_other_stores_name_their_own_package_or_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    assert told("wds:abfs://bucket/set").endswith("pip install adlfs")
    assert "allowed: https://, s3://, gs:// and what else fsspec knows" in told("wds:nowhere://bucket/set")


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        server: Any = self.server
        content = server.files.get(self.path.lstrip("/"))
        status, first, last = (404, 0, -1) if content is None else (200, 0, len(content) - 1)
        if content is not None and server.heeds_range and self.headers["Range"]:
            start, end = self.headers["Range"].removeprefix("bytes=").split("-")
            status, first, last = 206, int(start), min(int(end), last)
        status = server.failures.pop(0) if server.failures else status
        server.statuses.append(status)
        self.send_response(status)
        self.send_header("ETag", server.etag)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content or b'')}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write((content or b"")[first : last + 1])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    running.daemon_threads = True
    running.files, running.heeds_range, running.etag = dict(shards()), True, '"one"'
    running.statuses, running.failures = [], []
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def test_workers_read_pieces_from_a_server_that_fails_once(server: Any) -> None:
    split = opened(f"wds:http://127.0.0.1:{server.server_port}/{BRACES}").split("train")
    del server.statuses[:]
    server.failures.append(503)
    batches = list(evaluation_batches(split, [Preprocess(8)], 3, ReadPolicy(2)))
    assert torch.cat([views[0] for views, _, _ in batches])[:, 0, 0, 0].tolist() == list(range(20))
    assert sorted(server.statuses) == [206] * 20 + [503]
    server.etag = '"two"'
    with pytest.raises(BadImage, match="has changed on its server"):
        list(evaluation_batches(split, [Preprocess(8)], 3, ReadPolicy(2)))


def test_a_server_without_range_gives_whole_shards_once(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "require_checksums", lambda *_: address.Checksums("", ""))
    server.heeds_range = False
    uri = f"wds:http://127.0.0.1:{server.server_port}/{BRACES}"
    assert values(opened(uri).split("val")) == list(range(20, 40))
    asked = len(server.statuses)
    assert values(opened(uri).split("val")) == list(range(20, 40))
    assert len(server.statuses) == asked + 1
