"""Pictures without labels: found in any order of the disk, read in batches, and left out with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fixres.data.transforms import evaluation_crop
from fixres.data.unlabelled import Pictures, name_of, open_picture, picture_batches
from fixres.errors import UserError
from fixres.resolution import Preprocess
from tests.support.pictures import smooth

VIEW = Preprocess(16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with pictures at several depths and other files between them."""
    for name in ("b/2.jpg", "b/10.PNG", "b.jpg", "a/deep/1.jpg", "c/0.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        smooth(20, 24, seed=len(name)).save(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("b.jpg\n\nc/0.jpg")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    return tmp_path


def test_folders_lists_tables_and_files_are_named_one_after_the_other(folder: Path) -> None:
    inside = [f"{folder}/{name}" for name in ("a/deep/1.jpg", "b.jpg", "b/10.PNG", "b/2.jpg", "c/0.jpg")]
    assert list(Pictures([str(folder)])) == inside
    (folder / "t.csv").write_text("label,path\nx,b.jpg\nx,c/0.jpg\n")
    (folder / "a" / "notes.txt").write_text(f"../b.jpg\n\n../none.jpg\n{folder}/c/0.jpg")
    arguments = [f"{folder}/c/0.jpg", f"{folder}/a/notes.txt", f"{folder}/t.csv", f"{folder}/b"]
    pictures = Pictures(arguments)
    # Relative paths count from the list's folder, whatever the list is.
    assert list(pictures)[:4] == [inside[4], f"{folder}/a/../b.jpg", f"{folder}/a/../none.jpg", f"{folder}/c/0.jpg"]
    assert list(pictures)[4:6] == [f"{folder}/b.jpg", f"{folder}/c/0.jpg"]
    assert list(pictures)[6:] == inside[2:4]
    # They are looked for anew every time.
    (folder / "b" / "2.jpg").unlink()
    assert pictures.count() == len(list(pictures)) == 7
    lines = Pictures(["-", f"{folder}/b.jpg"], iter(["one.jpg\r\n", "\n", " two.jpg"]))
    assert lines.count() is None
    assert list(lines) == ["one.jpg", " two.jpg", f"{folder}/b.jpg"]


def test_what_is_not_there_is_said_before_anything_is_read(folder: Path) -> None:
    (folder / "empty").mkdir()
    for argument, said in (("none.jpg", "no such file or folder: .*none"), ("empty", "no pictures in .*empty\n  look")):
        with pytest.raises(UserError, match=said):
            Pictures([f"{folder}/b.jpg", f"{folder}/{argument}"])


def test_a_list_of_which_nothing_is_there_says_what_would_find_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a" / "l.txt").write_text("b/2.jpg\nb.jpg\n")
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"none of the 2 pictures that a/l.txt lists is there") as caught:
        Pictures(["a/l.txt"])
    assert str(caught.value).endswith(
        f"{folder}/b/2.jpg is there: in the folder {folder}, fixres predict CKPT - < LIST"
    )
    (folder / "t.csv").write_text("path\nb\\2\nc\\0\n")
    with pytest.raises(UserError, match=r"b/2.jpg is there: write / in place of \\; add .jpg to the names"):
        Pictures(["t.csv"])


def test_folders_are_walked_as_collections_are(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("elsewhere/1.png", "in/cat/0.png", "in/.trash/2.png", "in/@eaDir/3.png", "in/cat/._0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        smooth(8, 8).save(tmp_path / name)
    smooth(8, 8).save(tmp_path / "in" / "cat" / "a.jfif", "JPEG")
    smooth(8, 8).save(tmp_path / "in" / "cat" / "b.avif")
    for k in range(4):
        (tmp_path / "in" / f"{k}.NEF").write_bytes(b"")
    (tmp_path / "in" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "dog2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "cat" / "loop").symlink_to(tmp_path / "in")
    pictures = Pictures([str(tmp_path / "in")])
    found = [Path(path).relative_to(tmp_path / "in").as_posix() for path in pictures]
    assert found == ["cat/0.png", "cat/a.jfif", "cat/b.avif", "dog/1.png"]
    lines = pictures.passed_over.in_words()
    assert [line.partition(":")[0][:33] for line in lines] == [
        "4 files ignored, a camera's raw f",
        "1 folder ignored, a system's own",
        "1 file ignored, hidden",
    ]
    list(pictures)
    assert pictures.passed_over.in_words() == lines, "counted anew every time"


def test_a_picture_is_the_same_in_every_form(folder: Path) -> None:
    path = folder / "b" / "10.PNG"
    image = Image.open(path)
    expected = np.asarray(image)
    for picture in (path, str(path), path.read_bytes(), image, np.asarray(image)):
        assert np.array_equal(np.asarray(open_picture(picture, VIEW)), expected)
    grey = open_picture(np.full((4, 6), 9, dtype=np.uint8), VIEW)
    assert (grey.mode, grey.size, grey.getpixel((0, 0))) == ("RGB", (6, 4), (9, 9, 9))
    # Transparency and 16 bits mean what they mean in a file.
    assert open_picture(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), VIEW).getpixel((0, 0)) == (255, 255, 255)
    deep = Image.fromarray(np.full((4, 4), 257 * 100, dtype=np.uint16))
    assert open_picture(deep, VIEW).getpixel((0, 0)) == (100, 100, 100)
    assert [name_of(picture) for picture in (path, b"", np.zeros(1))] == [str(path), "bytes", "ndarray"]


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), r"an array float32 \[4, 4, 3\] is no picture"),
        (np.zeros((4, 4, 4), dtype=np.uint8), r"an array uint8 \[4, 4, 4\] is no picture"),
        (b"words", "bytes: not a picture"),
        ("none.jpg", "none.jpg: no such file or directory"),
        ("a\0b.jpg", "null byte"),
    ],
)
def test_what_is_no_picture_says_why(picture: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_picture(picture, VIEW)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_keep_the_order_and_tell_what_could_not_be_read(folder: Path, workers: int) -> None:
    (folder / "b" / "2.jpg").write_bytes(b"words")
    paths = [*Pictures([str(folder)]), "none.jpg"]
    batches = list(picture_batches(iter(paths), VIEW, 4, workers))
    assert [batch.names for batch in batches] == [tuple(paths[:4]), tuple(paths[4:])]
    assert [batch.places for batch in batches] == [(0, 1, 2), (0,)]
    assert [set(batch.errors) for batch in batches] == [{3}, {1}]
    assert batches[1].errors[1] == "no such file or directory"
    for batch in batches:
        expected = [evaluation_crop(open_picture(batch.names[place], VIEW), VIEW) for place in batch.places]
        assert torch.equal(batch.images, torch.stack(expected))


def test_a_batch_may_hold_no_picture_at_all() -> None:
    (batch,) = picture_batches([b"", b"words"], VIEW, 8)
    assert (tuple(batch.images.shape), batch.places, set(batch.errors)) == ((0, 3, 16, 16), (), {0, 1})
    assert list(picture_batches([], VIEW, 8)) == []


def test_tables_of_ids_name_their_pictures_and_carry_columns_along(tmp_path: Path) -> None:
    for folder, names in (("train", "abc"), ("test", "ab")):
        (tmp_path / folder).mkdir()
        for name in names:
            smooth(8, 8).save(tmp_path / folder / f"{name}.jpg")
    form = tmp_path / "sample_submission.csv"
    form.write_text("id,label,note\nb,0,\na,0,x y\n")
    pictures = Pictures([str(form)], keep=("id", "note"))
    assert list(pictures.rows()) == [
        (f"{tmp_path}/test/b.jpg", {"id": "b", "note": ""}),
        (f"{tmp_path}/test/a.jpg", {"id": "a", "note": "x y"}),
    ]
    assert pictures.notes == [f"{form}: pictures in 'id', files in {tmp_path}/test"]
    named = Pictures([f"csv:{form}?root={tmp_path}/train&image=id"])
    assert list(named) == [f"{tmp_path}/train/b.jpg", f"{tmp_path}/train/a.jpg"]
    assert named.count() == 2
    (tmp_path / "ids.csv").write_text("id\na\n")
    with pytest.raises(UserError, match=r"'a' may be test/a.jpg or train/a.jpg in .*\n  csv:.*ids.csv.root=.*/test"):
        Pictures([f"{tmp_path}/ids.csv"])
    with pytest.raises(UserError, match=r"has no column 'who'\n.*--keep NAME"):
        Pictures([str(form)], keep=("who",))
    with pytest.raises(UserError, match=r"--keep carries columns of a table, which .*train is not"):
        Pictures([f"{tmp_path}/train"], keep=("id",))
