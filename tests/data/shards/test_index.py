"""The index of shards: made once and again for what changed; damaged shards are named."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fixres.data.shards import index as index_module
from fixres.data.shards.index import INDEX_NAME
from tests.support.opening import opened, refusal
from tests.support.tar_shards import picture, samples, shard, three, values


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
    message = refusal(f"wds:{tmp_path}")
    assert "train-0001.tar" in message
    assert "cut short" in message or "no plain tar" in message
    if share > 0.2:
        assert ".png" in message or ".cls" in message


def test_a_cut_between_two_members_is_seen(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", samples(range(20)))
    with path.open("r+b") as file:
        file.truncate(20 * 1024)
    assert "cut short or damaged at 00009.cls" in refusal(f"wds:{tmp_path}")


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", samples(range(20)))
    content = bytearray(path.read_bytes())
    content[10 * 1024 + 150] ^= 1
    path.write_bytes(content)
    assert "cut short or damaged at 00004.cls" in refusal(f"wds:{tmp_path}")


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
    assert message in refusal(f"wds:{tmp_path}")
