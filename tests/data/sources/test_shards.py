"""Tar shards: indexed once, read from anywhere in them, written so that nothing changes, refused when damaged."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import random
import tarfile
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.collections import Collection, Split, open_collection
from fixres.data.decode import BadImage
from fixres.data.pack import Packing, pack
from fixres.data.shards import index as index_module
from fixres.data.shards.index import INDEX_NAME
from fixres.data.shards.patterns import expand_braces, split_of
from fixres.errors import UserError
from fixres.io.download import range_client


def picture(value: int, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, 6), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path: Path, files: Sequence[tuple[str, bytes | str]], form: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files:
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def samples(numbers: Sequence[int], labels: int = 2) -> list[tuple[str, bytes | str]]:
    return [file for k in numbers for file in ((f"{k:05}.png", picture(k)), (f"{k:05}.cls", str(k % labels)))]


def three(root: Path) -> Path:
    for place, name in enumerate(("train", "val", "test")):
        for number in range(2):
            first = 20 * place + 10 * number
            shard(root / f"{name}-{number:04}.tar", samples(range(first, first + 10)))
    return root


def opened(uri: str, **settings: Any) -> Collection:
    return open_collection(Data(uri=uri, **settings))


def told(uri: str) -> str:
    with pytest.raises(UserError) as caught:
        opened(uri)
    return str(caught.value)


def values(split: Split) -> list[int]:
    return [split.read(k).getpixel((0, 0))[0] for k in range(len(split))]  # type: ignore[index]


def test_shards_are_split_by_name_and_read_in_any_order(tmp_path: Path) -> None:
    collection = opened(f"wds:{three(tmp_path)}")
    assert (collection.classes, collection.select, collection.report) == (("0", "1"), "val", "test")
    for place, name in enumerate(("train", "val", "test")):
        split = collection.split(name)
        assert values(split) == list(range(20 * place, 20 * place + 20))
        assert split.labels.tolist() == [k % 2 for k in range(20)]
    train = collection.split("train")
    order = random.Random(0).sample(range(20), 20)
    assert [train.read(k).getpixel((0, 0))[0] for k in order] == order  # type: ignore[index]
    assert train.paths[11] == "train-0001.tar/00011.png"


@pytest.mark.parametrize(
    "pattern",
    [
        "{}/*.tar",
        "{}/{train,val,test}-{0000..0001}.tar",
        "{}?train=train-*.tar&val=val-{0000..0001}.tar&test=test-*.tar",
    ],
)
def test_patterns_that_mean_the_same(tmp_path: Path, pattern: str) -> None:
    whole = opened(f"wds:{three(tmp_path)}")
    collection = opened("wds:" + pattern.replace("{}", str(tmp_path)))
    for name, split in whole.splits.items():
        assert collection.split(name).file_list_hash() == split.file_list_hash()
    assert opened(collection.uri).uri == collection.uri


def test_folders_name_the_split_and_names_come_from_the_list(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        shard(tmp_path / name / "000.tar", samples(range(20)))
    (tmp_path / "classes.txt").write_text("pear\napple\n")
    collection = opened(f"wds:{tmp_path}")
    assert collection.classes == ("pear", "apple")
    assert set(collection.splits) == {"train", "holdout", "val"}
    assert collection.split("val").paths[3] == "validation/000.tar/00003.png"
    assert collection.split("val").labels[3] == 1


def test_shards_without_splits_are_carved_and_labels_may_be_names(tmp_path: Path) -> None:
    files = [f for k in range(20) for f in ((f"a/b/{k}.x.png", picture(k)), (f"a/b/{k}.cls", ("plum", "fig")[k % 2]))]
    shard(tmp_path / "0.tar", [*files, ("._junk.png", b"x"), ("a/b/19.json", "{}")])
    collection = opened(f"wds:{tmp_path}/0.tar")
    assert collection.classes == ("fig", "plum")
    assert {name: len(split) for name, split in collection.splits.items()} == {"train": 12, "val": 4, "test": 4}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_both_kinds(tmp_path: Path, form: int) -> None:
    folder = "é" * 70 + "/" + "y" * 120
    files = [f for k in range(20) for f in ((f"{folder}/{k}.png", picture(k)), (f"{folder}/{k}.cls", str(k % 2)))]
    shard(tmp_path / "0.tar", files, form)
    split = opened(f"wds:{tmp_path}").split("train")
    assert sorted(values(split)) == sorted(int(path.rsplit("/", 1)[1].split(".")[0]) for path in split.paths)


def test_the_index_is_made_once_and_again_for_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned: list[str] = []
    plain = index_module.scan

    def scan(wanted: Any, open_shard: Any) -> Any:
        scanned.append(wanted.name)
        return plain(wanted, open_shard)

    monkeypatch.setattr(index_module, "scan", scan)
    three(tmp_path)
    first = opened(f"wds:{tmp_path}")
    assert len(scanned) == 6
    assert any("indexed 60 pictures in 6 shards" in note for note in first.notes)
    scanned.clear()
    again = opened(f"wds:{tmp_path}")
    assert (scanned, again.notes) == ([], ())
    opened(f"wds:{tmp_path}?train=train-*.tar&val=val-*.tar")
    assert scanned == []
    shard(tmp_path / "val-0001.tar", samples(range(100, 130)))
    changed = opened(f"wds:{tmp_path}")
    assert changed.notes[0] == (
        "the index did not match val-0001.tar (another size, time or ETag), which is indexed again; "
        "pictures: 30 where 10 were"
    )
    assert scanned == ["val-0001.tar"]
    assert values(changed.split("val")) == [*range(20, 30), *range(100, 130)]
    assert values(changed.split("test")) == list(range(40, 60))
    assert not opened(f"wds:{tmp_path}").notes, "said once"
    os.utime(tmp_path / "test-0000.tar", (1, 1))
    assert opened(f"wds:{tmp_path}").notes[0].endswith("pictures: as before, 10")
    scanned.clear()
    content = (tmp_path / INDEX_NAME).read_bytes()
    for damaged in (content[: len(content) // 2], b"", bytes(len(content))):
        (tmp_path / INDEX_NAME).write_bytes(damaged)
        assert values(opened(f"wds:{tmp_path}").split("val")) == [*range(20, 30), *range(100, 130)]
    assert len(scanned) == 18


@pytest.mark.parametrize("change", ["fewer", "classes"])
def test_a_run_whose_shards_were_replaced_is_refused(tmp_path: Path, change: str) -> None:
    shard(tmp_path / "a-0000.tar", samples(range(0, 20)))
    shard(tmp_path / "a-0001.tar", samples(range(20, 40)))
    data = Data(uri=f"wds:{tmp_path}")
    open_collection(data, tmp_path / "split.json")
    changed = [(name, "2" if change == "classes" and name.endswith("cls") else c) for name, c in samples(range(20, 40))]
    shard(tmp_path / "a-0001.tar", changed if change == "classes" else changed[:20])
    with pytest.raises(UserError, match=r"split\.json was made for other pictures \(40 then"):
        open_collection(data, tmp_path / "split.json")


def test_a_folder_that_cannot_be_written_keeps_its_index_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    three(tmp_path / "data")
    (tmp_path / "data" / INDEX_NAME).mkdir()  # the superuser of the tests may write anywhere else
    assert len(opened(f"wds:{tmp_path}/data").split("train")) == 20
    (kept,) = (tmp_path / "cache").rglob("*.npz")
    stamp = kept.stat().st_mtime_ns
    assert len(opened(f"wds:{tmp_path}/data").split("train")) == 20
    assert kept.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("share", [0.03, 0.3, 0.5, 0.77, 0.97])
def test_a_cut_shard_is_named_with_the_member(tmp_path: Path, share: float) -> None:
    three(tmp_path)
    path = tmp_path / "train-0001.tar"
    # The last block of the data, so that cuts fall inside headers, inside pictures and between members.
    size = 20 * 1024
    with path.open("r+b") as file:
        file.truncate(int(size * share))
    message = told(f"wds:{tmp_path}")
    assert "train-0001.tar" in message
    assert "cut short" in message or "no plain tar" in message
    if share > 0.2:
        assert ".png" in message or ".cls" in message


def test_a_cut_between_two_members_is_seen(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", samples(range(20)))
    with path.open("r+b") as file:
        file.truncate(20 * 1024)
    assert "cut short or damaged at 00009.cls" in told(f"wds:{tmp_path}")


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", samples(range(20)))
    content = bytearray(path.read_bytes())
    content[10 * 1024 + 150] ^= 1
    path.write_bytes(content)
    assert "cut short or damaged at 00004.cls" in told(f"wds:{tmp_path}")


def test_a_shard_that_changes_after_it_was_indexed_is_never_read_wrongly(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", samples(range(30)))
    status = path.stat()
    split = opened(f"wds:{tmp_path}").split("train")
    last = max(range(len(split)), key=lambda k: split.paths[k])
    shard(path, [("extra.txt", "x" * 600), *samples(range(30))])
    with path.open("r+b") as file:
        file.truncate(status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = opened(f"wds:{tmp_path}").split("train")
    with pytest.raises(BadImage, match="the index does not match its shard"):
        again.read(0)
    with path.open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(BadImage, match="cut short"):
        again.read(last)
    path.unlink()
    elsewhere = pickle.loads(pickle.dumps(again))
    with pytest.raises(BadImage, match=r"0\.tar/.*: its shard cannot be read \(No such file"):
        elsewhere.read(0)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("a.png", b"x"), ("b.cls", "1"), ("b.png", b"x")], "a has no .cls beside its picture"),
        ([("a.cls", "1"), ("b.png", b"x"), ("b.cls", "1")], "a has no picture"),
        ([("a.png", b"x"), ("a.jpg", b"x"), ("a.cls", "1")], "two pictures in one sample: a.png and a.jpg"),
        ([("a.png", b"x"), ("a.cls", "")], "has 0 bytes"),
        ([("a.png", b"x"), ("a.cls", b"\xff")], "is no line of text"),
        ([("a.png", b"x"), ("a.cls", "x\ny")], "is no line of text"),
        ([("a.png", b"x"), ("a.cls", "1"), ("a.png", b"x"), ("a.cls", "1")], "two pictures in one sample"),
        ([*samples([1, 2]), *samples([1])], "twice"),
        ([("readme.txt", "x")], "the shards are empty"),
    ],
)
def test_shards_that_hold_no_samples(tmp_path: Path, files: list[tuple[str, bytes | str]], message: str) -> None:
    shard(tmp_path / "0.tar", files)
    assert message in told(f"wds:{tmp_path}")


def test_labels_outside_the_list(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", samples(range(20), labels=4))
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    assert "the label '3' of 0.tar/00003.png is outside the class list\n  classes.txt allows 0 to 2" in told(
        f"wds:{tmp_path}"
    )
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    assert opened(f"wds:{tmp_path}?train=0.tar&classes={tmp_path}/names.txt", holdout=0).classes == ("a", "b", "c", "d")
    (tmp_path / "classes.txt").write_text("a\nb\na\n")
    assert "a name twice" in told(f"wds:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "uri", "message"),
    [
        ("a.tar.gz", "{}/a.tar.gz", "gunzip -c {}/a.tar.gz > {}/a.tar"),
        ("a.tgz", "{}/*", "gunzip -c {}/a.tgz > {}/a.tar"),
        ("a.tar", "{}/a.tar", "no plain tar file"),
        ("a.tar", "{}/b-{0..3}.tar", "there is no shard {}/b-0.tar\n  0 of the 4"),
        ("a.tar", "{}/{3..1}.tar", "is no range"),
        ("x.txt", "{}", "no shards match"),
        ("a.tar", "https://h.example/*.tar", "the web has no lists of files"),
        ("a.tar", "{}?train=a.tar&test=*.tar", "is named for both train and test"),
        ("a-train-val.tar", "{}", "is named after train and val"),
    ],
)
def test_patterns_that_cannot_be_used(tmp_path: Path, name: str, uri: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b" + bytes(range(256)) * 8)
    assert message.replace("{}", str(tmp_path)) in told("wds:" + uri.replace("{}", str(tmp_path)))


def test_shards_of_which_some_say_their_split(tmp_path: Path) -> None:
    three(tmp_path)
    shard(tmp_path / "more.tar", samples(range(3)))
    assert "more.tar does not say which split it is of" in told(f"wds:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("d/imagenet1k-validation-03.tar", "val"),
        ("d/train0001.tar", "train"),
        ("/data/test/0.tar", "test"),
        ("/train/x/000.tar", ""),
        ("constraint-1.tar", ""),
    ],
)
def test_the_split_a_name_says(name: str, split: str) -> None:
    assert split_of(name) == split


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 5))
def test_braces(first: int, extra: int, width: int) -> None:
    start = f"{first:0{width}}"
    found = list(expand_braces(f"a{{x,y}}-{{{start}..{first + extra}}}.tar"))
    padded = width if start.startswith("0") else 0
    assert found == [f"a{c}-{n:0{padded}}.tar" for c in "xy" for n in range(first, first + extra + 1)]
    assert list(expand_braces("a{b}{}")) == ["a{b}{}"]


def _read_in_process(split: Split, places: Sequence[int], queue: Any) -> None:
    queue.put([split.read(k).getpixel((0, 0))[0] for k in places])  # type: ignore[index]


def test_processes_share_no_file_position(tmp_path: Path) -> None:
    split = opened(f"wds:{three(tmp_path)}").split("train")
    assert values(split) == list(range(20))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    orders = [random.Random(seed).choices(range(20), k=200) for seed in range(3)]
    workers = [context.Process(target=_read_in_process, args=(split, order, queue)) for order in orders]
    for worker in workers:
        worker.start()
    answers = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(answers) == sorted(orders)


def test_packing_keeps_pictures_labels_and_order(photos: Path, tmp_path: Path) -> None:
    collection = opened(str(photos))
    progress: list[tuple[int, int]] = []
    shards = pack(
        collection, tmp_path / "out", Packing(images_per_shard=5), progress=lambda *done: progress.append(done)
    )
    assert [s.name for s in shards] == [
        *(f"train-{k:06}.tar" for k in range(5)),
        "holdout-000000.tar",
        "val-000000.tar",
        "val-000001.tar",
    ]
    assert progress[-1] == (34, 34)
    back = opened(f"wds:{tmp_path}/out")
    assert (back.classes, back.select, back.report) == (("blue", "red"), "holdout", "val")
    assert back.notes == ()
    for name, split in collection.splits.items():
        packed = back.split(name)
        assert packed.labels.tolist() == split.labels.tolist()
        for k in range(len(split)):
            assert packed.source.read_bytes(packed.paths[k]) == (photos / split.paths[k]).read_bytes()  # type: ignore[attr-defined]
    first = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.tar")}
    pack(collection, tmp_path / "second", Packing(images_per_shard=5))
    assert {p.name: p.read_bytes() for p in (tmp_path / "second").glob("*.tar")} == first
    with pytest.raises(UserError, match="is there already"):
        pack(collection, tmp_path / "out")


@pytest.mark.parametrize("max_side", [None, 32])
def test_packing_refuses_or_leaves_out_what_cannot_be_read(photos: Path, tmp_path: Path, max_side: int | None) -> None:
    (photos / "train" / "red" / "01.jpg").write_bytes(b"no picture")
    cut = photos / "val" / "blue" / "02.jpg"
    cut.write_bytes(cut.read_bytes()[:400])
    collection = opened(str(photos), holdout=0)
    with pytest.raises(BadImage, match=r"(?s)01\.jpg: not a picture.*--on-bad-image skip"):
        pack(collection, tmp_path / "out", Packing(max_side=max_side))
    assert not (tmp_path / "out").exists()
    bad: list[str] = []
    pack(collection, tmp_path / "out", Packing(images_per_shard=5, max_side=max_side, on_bad_image="skip"), bad=bad)
    assert bad == ["train/red/01.jpg", "val/blue/02.jpg"]
    back = opened(f"wds:{tmp_path}/out", holdout=0)
    for name, split in collection.splits.items():
        kept = [k for k in range(len(split)) if split.paths[k] not in bad]
        assert back.split(name).labels.tolist() == split.labels[kept].tolist()
        assert len(values(back.split(name))) == len(kept)


def test_packing_smaller_touches_only_what_is_larger(tmp_path: Path, photos: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100), "red").save(photos / "val" / "red" / "00.jpg", exif=exif)
    collection = opened(str(photos))
    pack(collection, tmp_path / "out", Packing(max_side=64, quality=80))
    back = opened(f"wds:{tmp_path}/out")
    for name, split in collection.splits.items():
        for k in range(len(split)):
            before, after = split.read(k), back.split(name).read(k)
            if max(before.size) <= 64:
                assert np.array_equal(np.asarray(before), np.asarray(after))
            else:
                assert max(after.size) == 64
                assert abs(after.width / after.height - before.width / before.height) < 0.03
    turned = back.split("val")
    place = list(collection.split("val").paths).index("val/red/00.jpg")
    assert turned.read(place).size == (32, 64)


def test_packing_what_is_no_file_and_what_cannot_be_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = opened("synthetic:classes=3,images=12,size=16")
    shards = pack(collection, tmp_path / "out")
    back = opened(f"wds:{tmp_path}/out")
    for name, split in collection.splits.items():
        assert np.array_equal(np.asarray(split.read(2)), np.asarray(back.split(name).read(2)))
    assert len(shards) == 3

    calls = 0
    plain = tarfile.TarFile.addfile

    def fail(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 15:
            raise OSError(28, "No space left on device")
        plain(*args)

    monkeypatch.setattr(tarfile.TarFile, "addfile", fail)
    with pytest.raises(UserError, match="No space left"):
        pack(collection, tmp_path / "full", Packing(images_per_shard=5))
    assert not (tmp_path / "full").exists()
    monkeypatch.undo()
    pack(collection, tmp_path / "full", Packing(images_per_shard=5))
    assert not list(tmp_path.glob(".*.part"))


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        server: Any = self.server
        path = server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        wanted = self.headers["Range"]
        status, start, end = 200, 0, len(content) - 1
        if wanted and server.heeds_range:
            first, last = wanted.removeprefix("bytes=").split("-")
            status, start, end = 206, int(first), min(int(last), len(content) - 1)
        if server.failures:
            status = server.failures.pop(0)
        server.answers.append(status)
        self.send_response(status)
        self.send_header("ETag", server.etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.send_header("Content-Length", str(end + 1 - start))
        self.end_headers()
        self.wfile.write(content[start : end + 1])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(range_client, "BACK_OFF_SECONDS", 0.01)
    running: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    running.daemon_threads = True
    running.folder, running.heeds_range, running.etag = tmp_path / "web", True, '"one"'
    running.answers, running.failures = [], []
    threading.Thread(target=running.serve_forever, daemon=True).start()
    three(running.folder)
    yield running
    running.shutdown()
    running.server_close()


def test_shards_on_the_web_are_read_in_pieces(server: Any, tmp_path: Path) -> None:
    (server.folder / "classes.txt").write_text("even\nodd\n")
    uri = f"wds:http://127.0.0.1:{server.server_port}/{{train,val,test}}-{{0000..0001}}.tar"
    collection = opened(uri)
    assert collection.classes == ("even", "odd")
    assert values(collection.split("val")) == list(range(20, 40))
    assert set(server.answers) == {206, 200}
    assert server.answers.count(200) == 1
    assert any("plain http" in note for note in collection.notes)
    num = len(server.answers)
    assert values(opened(uri).split("val"))[:1] == [20]
    assert len(server.answers) - num < 6 + 1 + 6 + 20
    server.failures += [503, 503]
    assert collection.split("val").read(5).getpixel((0, 0))[0] == 25  # type: ignore[index]
    server.etag = '"two"'
    with pytest.raises(BadImage, match="has changed on its server"):
        collection.split("val").read(5)


def test_shards_of_a_server_without_pieces_are_fetched(server: Any, tmp_path: Path, monkeypatch: Any) -> None:
    server.heeds_range = False
    base = f"http://127.0.0.1:{server.server_port}"
    uri = f"wds:{base}/{{train,val,test}}-{{0000..0001}}.tar"
    assert "plain http" in told(uri)
    from fixres.io.download import address, cache

    monkeypatch.setattr(cache, "require_checksums", lambda url, sha256, md5: address.Checksums("", ""))
    assert values(opened(uri).split("test")) == list(range(40, 60))
    num = len(server.answers)
    assert values(opened(uri).split("test")) == list(range(40, 60))
    assert len(server.answers) == num + 1
    assert "cannot be read: HTTP 404" in told(f"wds:{base}/train-0009.tar")


def test_a_shard_that_is_gone_or_packed_is_never_passed_over(photos: Path, tmp_path: Path) -> None:
    collection = open_collection(Data(uri=f"folder:{photos}"))
    pack(collection, tmp_path / "w", Packing(images_per_shard=5))
    open_collection(Data(uri=f"wds:{tmp_path / 'w'}"))
    shard = sorted((tmp_path / "w").glob("*.tar"))[-1]
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(UserError, match=rf"the index lists {shard.name}, which is gone"):
        open_collection(Data(uri=f"wds:{tmp_path / 'w'}"))
    (tmp_path / "w" / f"{shard.name}.gz").write_bytes(content)
    with pytest.raises(UserError, match="is packed"):
        open_collection(Data(uri=f"wds:{tmp_path / 'w'}"))
