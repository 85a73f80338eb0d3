"""Tar shards as a collection: splits, class lists and labels, and shards that were replaced or are gone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.data.pack import Packing, pack
from fixres.errors import UserError
from tests.support.opening import opened, refusal
from tests.support.tar_shards import picture, samples, shard, three, values


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


def test_labels_outside_the_list(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", samples(range(20), labels=4))
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    assert "the label '3' of 0.tar/00003.png is outside the class list\n  classes.txt allows 0 to 2" in refusal(
        f"wds:{tmp_path}"
    )
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    assert opened(f"wds:{tmp_path}?train=0.tar&classes={tmp_path}/names.txt", holdout=0).classes == ("a", "b", "c", "d")
    (tmp_path / "classes.txt").write_text("a\nb\na\n")
    assert "a name twice" in refusal(f"wds:{tmp_path}")


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
