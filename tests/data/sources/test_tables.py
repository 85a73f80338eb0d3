"""Tables of pictures: CSV, TSV, JSONL, Parquet; and every mistake with its line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.data.decode import BadImage
from fixres.data.sources.tables import named_labels, sorted_names
from tests.support.opening import opened, refusal

ROWS = [
    (f"{split}/{name}{k}.png", name, split) for split in ("train", "val", "test") for name in "ab" for k in range(3)
]


def pictures(root: Path, paths: list[str]) -> None:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (number, 0, 0)).save(root / path)


def write(
    path: Path, kind: str, rows: list[tuple[str, ...]], names: tuple[str, ...] = ("path", "label", "split")
) -> Path:
    path = path.with_suffix(kind)
    if kind == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    elif kind == ".parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        columns = {name: [row[k] for row in rows] for k, name in enumerate(names)}
        parquet.write_table(pyarrow.table(columns), path)
    else:
        separator = "\t" if kind == ".tsv" else ","
        path.write_text("".join(separator.join(row) + "\n" for row in (names, *rows)))
    return path


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_of_table_is_the_same_collection(tmp_path: Path, kind: str) -> None:
    pictures(tmp_path, [row[0] for row in ROWS])
    table = write(tmp_path / "t", kind, ROWS)
    collection = opened(f"csv:{table}")
    assert (collection.classes, collection.select, collection.report) == (("a", "b"), "val", "test")
    for name in ("train", "val", "test"):
        split = collection.split(name)
        assert list(split.paths) == [row[0] for row in ROWS if row[2] == name]
        assert split.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert collection.split("val").read(4).getpixel((0, 0)) == (10, 0, 0)
    assert collection.uri == f"csv:{table}"


def test_a_bare_path_of_a_table_is_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path, [ROWS[-1][0]])
    write(tmp_path / "50% off?", ".csv", ROWS)
    monkeypatch.chdir(tmp_path)
    collection = opened("50% off?.csv")
    assert len(collection.split("train")) == 6
    monkeypatch.chdir("/")
    assert len(opened(collection.uri).split("train")) == 6


def test_other_columns_another_root_and_no_split_column(tmp_path: Path) -> None:
    files = [f"{k}.png" for k in range(50)]
    pictures(tmp_path / "elsewhere", files)
    rows = [(str(k % 10 + 3), file, "x") for k, file in enumerate(files)]
    table = write(tmp_path / "t", ".csv", rows, ("kind", "file", "split"))
    uri = f"csv:{table}?root={tmp_path}/elsewhere&image=file&label=kind"
    assert "'x' is no split" in refusal(uri)
    table.write_text(table.read_text().replace("split", "other"))
    assert "has no column 'part'" in refusal(f"{uri}&split=part")
    collection = opened(uri)
    assert collection.classes == tuple(str(k) for k in range(3, 13)), "whole numbers sort as numbers"
    assert {name: len(split) for name, split in collection.splits.items()} == {"train": 30, "val": 10, "test": 10}
    split = collection.split("train")
    assert split.read(0).getpixel((0, 0))[0] == int(split.paths[0].removesuffix(".png"))


def test_windows_tables_and_blank_lines_are_read(tmp_path: Path) -> None:
    text = "\ufeffpath , label\r\n\r\n" + "".join(f'"p,{k}.png", {"äb"[k % 2]}\r\n' for k in range(12)) + "\r\n"
    (tmp_path / "t.csv").write_bytes(text.encode())
    pictures(tmp_path, ["p,0.png"])
    collection = opened(f"csv:{tmp_path}/t.csv")
    assert collection.classes == ("b", "ä")
    assert sorted(p for s in collection.splits.values() for p in s.paths)[0] == "p,0.png"


HEAD = "path,label,split\n"
GOOD = "x.png,a,train\ny.png,b,train\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "lists no pictures"),
        (HEAD, "lists no pictures"),
        (
            "file,label\nx.png,a\n",
            "has no column 'path'\n  its columns are file, label; name the right one: ?image=NAME",
        ),
        ("paths,label\nx.png,a\n", "has no column 'path' - did you mean 'paths'?"),
        ("path,label,label\n", "line 1: a column name occurs twice"),
        (HEAD + GOOD + "z.png,,train\n", "line 4: column 'label' is empty"),
        (HEAD + GOOD + "z.png,a,\n", "line 4: column 'split' is empty"),
        (HEAD + GOOD + "z.png,a\n", "line 4 has 2 cells, the first line 3"),
        (HEAD + GOOD + 'z.png,"a\nb",train\n', "line 4: column 'label' holds a line break"),
        (HEAD + GOOD + '"z.png,a,train\nq.png,a,val\n', "line 4: unexpected end of data"),
        (HEAD + GOOD + "z\0.png,a,train\n", "line 4: column 'path' holds a NUL byte"),
        (HEAD + GOOD + "z.png,a,trian\n", "line 4: 'trian' is no split - did you mean 'train'?"),
        (HEAD + GOOD + "\nx.png,b,val\n", "lines 2 and 5 list the same picture, x.png"),
        (HEAD + GOOD + "./x.png,b,val\n", "lines 2 and 4 list the same picture, x.png and ./x.png"),
        (HEAD + "p//./q.png,a,train\nROOT/p/q.png,b,val\n", "lines 2 and 3 list the same picture, p//./q.png and /"),
        ("path;label\nx.png;a\n", "has semicolons between its columns, where a .csv file has commas\n  save it again"),
        (
            "path\tlabel\nx.png\ta\n",
            "has tabs between its columns, where a .csv file has commas\n  rename it to end in .tsv",
        ),
        (
            "x.png,a\ny.png,b\n",
            "has no column names: its first line is a picture already, x.png,a\n"
            "  write a line of names above it: path,label",
        ),
        ("X.JPG,train,train\n", "write a line of names above it: path,label,..."),
        (HEAD + GOOD + "z.png,c,val\n", "val of csv:"),
        (HEAD + GOOD + "z.png,caf\udce9,val\n", "line 4 is not UTF-8"),
        (HEAD.encode("utf-16").decode("utf-8", "surrogateescape"), "is UTF-16"),
    ],
)
def test_a_faulty_table_names_the_line(tmp_path: Path, content: str, message: str) -> None:
    content = content.replace("ROOT", str(tmp_path))
    pictures(tmp_path, ["x.png"])
    (tmp_path / "t.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert message in refusal(f"csv:{tmp_path}/t.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"path": "a"}\n', "has no column 'label'"),
        ('{"path": "a", "label": "x"}\n{"path": "b"}\n', "line 2: column 'label' is empty"),
        ('{"path": "a", "label": "x"}\n\n[1]\n', "line 3 is not an object"),
        ('{"path": "a", "label": 1.5}\n', "line 1: column 'label' holds 1.5"),
        ('{"path": "a", "label": true}\n', "line 1: column 'label' holds True"),
        ('{"path": ', "line 1 is not JSON"),
    ],
)
def test_faulty_json_lines_name_the_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text(content)
    assert message in refusal(f"csv:{tmp_path}/t.jsonl")


def test_files_that_are_no_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "labels.csv").write_text(HEAD + GOOD)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    assert "did you mean 'labels.csv'?" in refusal(f"csv:{tmp_path}/label.csv")
    assert "allowed: .csv .tsv .jsonl .parquet" in refusal(f"csv:{tmp_path}/t.xlsx")
    assert "cannot be read as Parquet" in refusal(f"csv:{tmp_path}/t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.lib", None)
    assert "pip install 'fixres[parquet]'" in refusal(f"csv:{tmp_path}/t.parquet")


def test_a_missing_picture_is_a_bad_image_that_is_named(tmp_path: Path) -> None:
    table = write(tmp_path / "t", ".csv", ROWS)
    pictures(tmp_path, [ROWS[-1][0]])
    with pytest.raises(BadImage, match=r"^train/a0\.png: cannot be read"):
        opened(f"csv:{table}").split("train").read(0)


@pytest.mark.parametrize(
    ("name", "there", "told"),
    [
        (
            "a/{k:03}",
            "photos/a/{k:03}.png",
            "ROOT/photos/a/000.png is there: csv:ROOT/t.csv?root=ROOT/photos; add .png to",
        ),
        ("a/{k}.jpg", "a/{k}.JPG", "ROOT/a/0.JPG is there: they end in .JPG, not in .jpg"),
        ("a\\{k}.png", "a/{k}.png", "ROOT/a/0.png is there: write / in place of \\"),
        ("/old/disk/a/{k}.png", "a/{k}.png", "is there: leave out /old/disk/ in front of the names"),
        ("/a/{k}.png", "a/{k}.png", "is there: leave out / in front of the names"),
        ("a/{k}.PNG", "a/{k}.png", "they end in .png, not in .PNG"),
        ("file://ROOT/a/{k}.png", "a/{k}.png", "is there: leave out file://"),
        ("ROOT/a/{k}", "a/{k}.png", "ROOT/a/0.png is there: add .png to the names"),
        ("in/{k}.png", "x/in/{k}.png", "ROOT/x/in/0.png is there: csv:ROOT/t.csv?root=ROOT/x"),
        ("file:///b%20c/{k}.png", "b c/{k}.png", "is there: leave out file://; write the names without %20"),
        (
            "in/{k}.png",
            "elsewhere/deep/in/{k}.png",
            "paths count from ROOT; from another folder DIR: csv:ROOT/t.csv?root=DIR",
        ),
    ],
)
def test_a_table_of_which_nothing_is_there_says_what_would_find_it(
    tmp_path: Path, name: str, there: str, told: str
) -> None:
    pictures(tmp_path, [there.format(k=k) for k in range(30)])
    write(
        tmp_path / "t",
        ".csv",
        [(name.replace("ROOT", str(tmp_path)).format(k=k), "xy"[k % 2]) for k in range(30)],
        ("path", "label"),
    )
    said = refusal(f"csv:{tmp_path}/t.csv")
    assert f"none of the 30 pictures that {tmp_path}/t.csv lists is there: " in said
    assert told.replace("ROOT", str(tmp_path)) in said


def test_advice_never_takes_two_names_for_one_file(tmp_path: Path) -> None:
    pictures(tmp_path, [f"cat/{k}.png" for k in range(10)])
    pictures(tmp_path, [f"dog/{k}.jpg" for k in range(10)])
    rows = [(f"old/{kind}/{k}", kind) for k in range(10) for kind in ("cat", "dog")]
    write(tmp_path / "t", ".csv", rows, ("path", "label"))
    assert "leave out old/cat/" not in refusal(f"csv:{tmp_path}/t.csv")


def test_a_table_of_which_something_is_there_is_opened(tmp_path: Path) -> None:
    rows = [(f"{k}.png", "xy"[k % 2]) for k in range(30)]
    pictures(tmp_path, ["29.png"])
    assert len(opened(f"csv:{write(tmp_path / 't', '.csv', rows, ('path', 'label'))}").split("train")) == 18


def test_file_names_are_found_in_either_unicode_form(tmp_path: Path) -> None:
    pictures(tmp_path, ["caf\N{LATIN SMALL LETTER E WITH ACUTE}/0.png", "cafe\N{COMBINING ACUTE ACCENT}2/1.png"])
    rows = [("cafe\N{COMBINING ACUTE ACCENT}/0.png", "x"), ("caf\N{LATIN SMALL LETTER E WITH ACUTE}2/1.png", "y")]
    write(tmp_path / "t", ".csv", [(*row, "train") for row in rows])
    split = open_collection(Data(uri=f"csv:{tmp_path}/t.csv"), for_training=False).split("train")
    assert [split.read(k).getpixel((0, 0)) for k in range(2)] == [(0, 0, 0), (1, 0, 0)]


@given(st.lists(st.integers(-50, 50).map(str) | st.sampled_from(["a", "7x"]), min_size=1, unique=True), st.data())
def test_labels_keep_their_names(names: list[str], data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1))
    classes, labels = named_labels(names, np.array(codes))
    assert [classes[label] for label in labels] == [names[code] for code in codes]
    assert classes == sorted_names({names[code] for code in codes})
    if all(name.lstrip("-").isdecimal() for name in classes):
        assert list(classes) == sorted(classes, key=int)
