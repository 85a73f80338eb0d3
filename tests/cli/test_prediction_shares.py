"""Shares of a list: all pictures, each once, in the batches of one process, without holding them."""

from __future__ import annotations

import tracemalloc
from itertools import chain
from pathlib import Path

import pytest

from fixres.cli.prediction_shares import Share, ShareWriter, joined, require_processes, share_file, share_files
from fixres.errors import UserError
from fixres.inference.predict import Prediction
from fixres.runtime.distributed import Shard

BATCH = 4


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("num", [0, 1, 4, 5, 23, 24])
def test_shares_are_whole_batches_of_the_list_and_know_their_places(num: int, world: int) -> None:
    listed = [(f"{i}.png", {"id": str(i)}) for i in range(num)]
    shares = [Share(Shard(rank, world), BATCH) for rank in range(world)]
    found = [list(share.of(listed)) for share in shares]
    assert sorted(chain(*found), key=listed.index) == listed
    for share, rows in zip(shares, found, strict=True):
        assert share.num_listed == num
        assert [listed[share.place(done)] for done in range(len(rows))] == rows
        assert all(len(rows[i : i + BATCH]) == BATCH or rows[i + BATCH - 1 :] == [] for i in range(0, len(rows), BATCH))


def write_shares(out: Path, num: int, world: int) -> None:
    listed = [(f"{i}.png", {"id": "\udcff\n"}) for i in range(num)]
    for share in share_files(out, world):
        share.begin({})
    for rank in range(world):
        with share_file(out, Shard(rank, world)).part.open("w", encoding="utf-8") as file:
            writer = ShareWriter(file)
            for path, kept in Share(Shard(rank, world), BATCH).of(listed):
                writer.write([Prediction(path, (("a", 1 / 3), ("b", 1e-300)), 32, said=("A", "b"))], [kept])


def test_what_is_joined_is_what_was_written_and_too_little_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    write_shares(out, 23, 3)
    rows = [row for batch in joined(share_files(out, 3), BATCH, 23) for row in zip(*batch, strict=True)]
    assert [p.path for p, _ in rows] == [f"{i}.png" for i in range(23)]
    assert [list(map(tuple, p.top)) for p, _ in rows] == [[("a", 1 / 3), ("b", 1e-300)]] * 23
    assert {(p.size, *p.said, kept["id"]) for p, kept in rows} == {(32, "A", "b", "\udcff\n")}
    with pytest.raises(UserError, match=r"the shares hold 23 of 24 pictures\n  --out has to be on a disk that every"):
        list(joined(share_files(out, 3), BATCH, 24))
    share_file(out, Shard(1, 3)).part.unlink()
    with pytest.raises(UserError, match=r"out\.csv\.2-of-3\.part is not there"):
        list(joined(share_files(out, 3), BATCH, 23))


def test_joining_holds_no_more_than_a_batch(tmp_path: Path) -> None:
    write_shares(tmp_path / "out", 20_000, 2)
    assert sum(share.part.stat().st_size for share in share_files(tmp_path / "out", 2)) > 2_000_000
    tracemalloc.start()
    try:
        num = sum(len(batch) for batch, _ in joined(share_files(tmp_path / "out", 2), BATCH, 20_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert num == 20_000
    assert peak < 200_000


@pytest.mark.parametrize("name", ["out.csv", "out[1].csv"])
def test_another_number_of_processes_is_told_which_to_start(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    write_shares(tmp_path / f"{name}x", 9, 5)
    require_processes(out, 2, False)
    write_shares(out, 9, 3)
    require_processes(out, 3, True)
    with pytest.raises(UserError, match=r"was begun by 3 processes, now there are 1\n  start 3 with --resume to go on"):
        require_processes(out, 1, True)
    with pytest.raises(UserError, match=r"was begun by 3 processes\n  start 3 with --resume .* delete .*\*-of-3\.part"):
        require_processes(out, 3, False)
