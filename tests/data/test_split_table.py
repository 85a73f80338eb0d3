"""Splits written down as tables: stratified, groups whole, the same for the same seed, opened again by csv:."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fixres.data.split_table import make_split, write_split_table
from fixres.errors import Notice, UserError
from tests.support.opening import opened


def fill(root: Path) -> Path:
    for name in ("a", "b"):
        for k in range(20):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (k, 0, 0)).save(root / name / f"p{k // 4}_{k}.png")
    return root


@pytest.mark.parametrize(("out", "first"), [("data/s.csv", "a/p0_0.png"), ("else/s.tsv", "{}/data/a/p0_0.png")])
def test_a_folder_is_written_down_and_opened_again(tmp_path: Path, out: str, first: str) -> None:
    root = fill(tmp_path / "data")
    table = write_split_table(f"folder:{root}", tmp_path / out, val=0.25, test=0.2, seed=1)
    assert table.counts == {"train": {"a": 11, "b": 11}, "val": {"a": 5, "b": 5}, "test": {"a": 4, "b": 4}}
    rows = (tmp_path / out).read_text().splitlines()
    assert rows[1].replace("\t", ",").startswith(first.replace("{}", str(tmp_path)) + ",a,")
    collection = opened(table.uri)
    assert (collection.select, collection.report) == ("val", "test")
    for name, split in collection.splits.items():
        assert split.counts().tolist() == list(table.counts[name].values())
        assert [split.read(k).getpixel((0, 0))[0] for k in range(len(split))] == [  # type: ignore[index]
            int(path.split("_")[-1].removesuffix(".png")) for path in split.paths
        ]
    write_split_table(f"folder:{root}", tmp_path / "again.csv", val=0.25, test=0.2, seed=1)
    write_split_table(f"folder:{root}", tmp_path / "other.csv", val=0.25, test=0.2, seed=2)
    texts = [(tmp_path / n).read_text().splitlines() for n in ("again.csv", "other.csv")]
    splits = [[row[-3:] for row in text] for text in (rows, *texts)]
    assert splits[0] == splits[1] != splits[2]


def test_names_that_a_spreadsheet_computes_stay_as_they_are_with_a_notice(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    (root / "a").rename(root / "=1+1")
    with pytest.warns(Notice, match="takes '=1.1' for a formula and computes it; this table is for programs"):
        table = write_split_table(f"folder:{root}", tmp_path / "s.csv")
    assert opened(table.uri).classes == ("=1+1", "b")


def test_groups_stay_together_by_name_or_by_column(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    named = write_split_table(str(root), tmp_path / "n.csv", group=r"/(p\d+)_")
    owner: dict[str, set[str]] = {}
    for row in (tmp_path / "n.csv").read_text().splitlines()[1:]:
        path, _, split = row.split(",")
        owner.setdefault(path.split("/")[-1].split("_")[0], set()).add(split)
    assert all(len(splits) == 1 for splits in owner.values())
    assert named.groups == {"train": 3, "val": 1, "test": 1}
    lines = [f"{c}/p{k // 4}_{k}.png,{c},{'xyzuv'[k // 4]}" for c in "ab" for k in range(20)]
    (root / "t.csv").write_text("path,label,who\n" + "\n".join(lines) + "\n")
    by_column = write_split_table(f"csv:{root}/t.csv", tmp_path / "c.csv", group="who")
    assert by_column.groups == named.groups
    assert sum(sum(c.values()) for c in by_column.counts.values()) == 40
    with pytest.raises(UserError, match="has no column 'whom' - did you mean 'who'"):
        write_split_table(f"csv:{root}/t.csv", tmp_path / "d.csv", group="whom")
    with pytest.raises(UserError, match="finds no group in a/p0_0"):
        write_split_table(str(root), tmp_path / "d.csv", group="q([0-9])")
    with pytest.raises(UserError, match="is no regular expression"):
        write_split_table(str(root), tmp_path / "d.csv", group="(")


def test_splits_of_its_own_are_put_together_and_said(photos: Path, tmp_path: Path) -> None:
    table = write_split_table(str(photos), tmp_path / "s.csv", val=0, test=0.5)
    assert any("train, val, are put together" in note for note in table.notes)
    for name in ("blue", "red"):
        assert sorted(counts[name] for counts in table.counts.values()) == [8, 9]
    assert set(table.counts) == {"train", "test"}


def test_what_cannot_be_written_down(tmp_path: Path, photos: Path) -> None:
    def told(uri: str, out: str = "s.csv", **shares: float) -> str:
        with pytest.raises(UserError) as caught:
            write_split_table(uri, tmp_path / out, **shares)  # type: ignore[arg-type]
        return str(caught.value)

    root = fill(tmp_path / "data")
    assert "are no files" in told("synthetic:classes=2,images=8")
    assert "ends in .csv or .tsv" in told(str(root), "s.xlsx")
    assert "together below 1" in told(str(root), val=0.6, test=0.4)
    assert "too few for val" in told(str(root), val=0.001)
    assert not (tmp_path / "s.csv").exists()
    (tmp_path / "there.csv").write_text("mine")
    assert "is there already" in told(str(root), "there.csv")
    assert (tmp_path / "there.csv").read_text() == "mine"
    (root / "a ").mkdir()
    Image.new("RGB", (4, 4)).save(root / "a " / "x.png")
    assert "begins or ends with a blank" in told(str(root))
    (root / "a " / "x.png").rename(root / "a" / "line\nbreak.png")
    (root / "a ").rmdir()
    assert "does not fit into a line" in told(str(root))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=80), st.integers(0, 5))
def test_parts_cover_everything_once_and_divide_no_group(rows: list[tuple[int, int]], seed: int) -> None:
    labels, groups = [label for label, _ in rows], [group for _, group in rows]
    parts = make_split(labels, {"train": 0.6, "val": 0.2, "test": 0.2}, seed, groups)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(rows)))
    of = {name: {groups[i] for i in indices.tolist()} for name, indices in parts.items()}
    assert not of["train"] & of["val"]
    assert not of["train"] & of["test"]
    assert not of["val"] & of["test"]


def test_many_small_groups_come_close_to_the_shares_of_every_class() -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice(3, 3000, p=[0.7, 0.25, 0.05]).tolist()
    groups = generator.integers(0, 400, 3000).tolist()
    parts = make_split(labels, {"train": 0.6, "val": 0.2, "test": 0.2}, 0, groups)
    whole = np.bincount(labels)
    for share, indices in zip((0.6, 0.2, 0.2), parts.values(), strict=True):
        assert np.abs(np.bincount(np.array(labels)[indices]) / whole - share).max() < 0.02
