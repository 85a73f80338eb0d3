"""Columns of tables made elsewhere: found by their usual names, one for each class read, and the rest said."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.data.sources.test_tables import write
from tests.support.opening import opened, refusal

KINDS = [".csv", ".tsv", ".jsonl", ".parquet"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with twenty pictures in the folder p."""
    (tmp_path / "p").mkdir()
    for k in range(20):
        Image.new("RGB", (4, 3)).save(tmp_path / "p" / f"x{k}.png")
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("names", "note"),
    [
        (("id", "breed"), "pictures in 'id', labels in 'breed'"),
        (("image_id", "label"), "pictures in 'image_id', labels in 'label'"),
        (("Image", "Id"), "pictures in 'Image', labels in 'Id'"),
        (("path", "dx"), "pictures in 'path', labels in 'dx'"),
    ],
)
def test_usual_names_are_taken_and_said(photos: Path, kind: str, names: tuple[str, str], note: str) -> None:
    rows = [(f"x{k}", "ab"[k % 2]) for k in range(20)]
    collection = opened(f"csv:{write(photos / 't', kind, rows, names)}?root={photos}/p")
    assert collection.classes == ("a", "b")
    assert collection.notes[0].startswith(f"t{kind}: {note} (")
    assert sorted(collection.split("test").paths)[0].endswith(".png")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("query", ["", "&label=*", "&label=cat,dog"])
def test_one_column_for_each_class_is_read(photos: Path, kind: str, query: str) -> None:
    rows = [(f"x{k}", "1.0" if k % 4 == 0 else "0", "0" if k % 4 == 0 else "1", str(k)) for k in range(20)]
    table = write(photos / "t", kind, rows, ("image", "cat", "dog", "age"))
    collection = opened(f"csv:{table}?root={photos}/p&image=image{query}")
    assert collection.classes == ("cat", "dog")
    assert sum(len(split) for split in collection.splits.values()) == 20
    assert sum(split.counts()[0] for split in collection.splits.values()) == 5


@pytest.mark.parametrize(
    ("names", "rows", "query", "told"),
    [
        (("id", "cat", "dog"), [("x0", "1", "1"), ("x1", "0", "1")], "", "hold 0 and 1, up to 2 classes a picture"),
        (("id", "cat", "dog"), [("x0", "0.1", "0.9"), ("x1", "0.5", "0.5")], "", "cat, dog hold probabilities, as a"),
        (("id", "cat", "dog"), [("x0", "1", "0"), ("x1", "0", "0")], "?label=cat,dog", "line 3 has no class"),
        (("id", "cat", "dog"), [("x0", "1", "0"), ("x1", "1", "1")], "?label=cat,dog", "line 3 has cat and dog"),
        (
            ("id", "cat", "dog"),
            [("x0", "1", "0"), ("x1", "2", "0")],
            "?label=cat,dog",
            "line 3: column 'cat' holds '2'",
        ),
        (("id", "cat", "dog"), [("x0", "1", "0")], "?label=cat,cow", "has no column 'cow'"),
        (("id", "who", "where"), [("x0", "me", "here")], "", "has no column 'label'"),
        (("id", "who"), [("x0", "me")], "?label=*", "needs columns of 0 and 1"),
        (("id", "label"), [("x0", "a")], "?path=id", "csv: has no setting 'path' - did you mean 'image=id'?"),
        (("id", "label"), [("x0", "a")], "?dir=p", "did you mean 'root=p'?"),
    ],
)
def test_what_is_no_label_is_said(
    photos: Path, names: tuple[str, ...], rows: list[tuple[str, ...]], query: str, told: str
) -> None:
    assert told in refusal(f"csv:{write(photos / 't', '.csv', rows, names)}{query}")


def test_a_root_may_lie_beside_the_table(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write(photos / "t", ".csv", [(f"x{k}.png", "ab"[k % 2]) for k in range(20)], ("path", "label"))
    monkeypatch.chdir("/")
    assert opened(f"csv:{table}?root=p").uri == f"csv:{table}?root={photos}/p"
