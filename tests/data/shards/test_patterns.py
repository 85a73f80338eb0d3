"""Patterns of shards: numbers in braces, and the split a name says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.data.shards.patterns import expand_braces, split_of
from tests.support.opening import opened, refusal
from tests.support.tar_shards import samples, shard, three


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
    assert message.replace("{}", str(tmp_path)) in refusal("wds:" + uri.replace("{}", str(tmp_path)))


def test_shards_of_which_some_say_their_split(tmp_path: Path) -> None:
    three(tmp_path)
    shard(tmp_path / "more.tar", samples(range(3)))
    assert "more.tar does not say which split it is of" in refusal(f"wds:{tmp_path}")


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
