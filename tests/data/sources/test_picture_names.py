"""Ids of tables are found whatever their files end in, and never taken for one of two."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fixres.data.sources.picture_names import PictureNames
from fixres.errors import UserError


def files(root: Path, *paths: str) -> PictureNames:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(root / path, "PNG")
    return PictureNames(root)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("abc123", "train/abc123.jpg"),
        ("v1.5", "train/v1.5.png"),
        ("top", "top.JPG"),
        ("train/abc123", "train/abc123.jpg"),
        ("./train/abc123", "train/abc123.jpg"),
        ("deep.tif", "part/a/deep.tif"),
        ("as-it-is", "as-it-is"),
        ("top.JPG", "top.JPG"),
        ("nothing", "nothing"),
        ("other/abc123", "other/abc123"),
        ("train/deep.tif", "train/deep.tif"),
        ("/abs/abc123", "/abs/abc123"),
        ("cafe\N{COMBINING ACUTE ACCENT}", "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png"),
    ],
)
def test_a_name_means_its_file(tmp_path: Path, name: str, path: str) -> None:
    accented = "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png"
    names = files(tmp_path, "train/abc123.jpg", "train/v1.5.png", "top.JPG", "part/a/deep.tif", "as-it-is", accented)
    assert names.path_of(name, "t.csv line 2", "csv:t.csv?root=DIR") == path


@pytest.mark.parametrize(
    ("paths", "advice"),
    [
        (("train/a.jpg", "test/a.jpg"), "csv:t.csv?root=ROOT/test"),
        (("a.jpg", "a.png"), "name them with their endings"),
        (("masks/a.png", "images/a.jpg"), "csv:t.csv?root=ROOT/images"),
    ],
)
def test_an_id_of_two_files_names_both(tmp_path: Path, paths: tuple[str, str], advice: str) -> None:
    with pytest.raises(UserError) as caught:
        files(tmp_path, *paths).path_of("a", "t.csv line 7", "csv:t.csv?root=DIR")
    first, second = sorted(paths)
    assert str(caught.value) == (
        f"t.csv line 7: 'a' may be {first} or {second} in {tmp_path}\n  {advice.replace('ROOT', str(tmp_path))}"
    )


def test_names_that_are_there_cost_no_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = files(tmp_path, "a.jpg", "b/c.jpg")
    monkeypatch.setattr("fixres.data.sources.picture_names.pictures_below", None)
    for name in ("a.jpg", "gone.jpg", "b/c.jpg", "b/gone.jpg"):
        assert names.path_of(name, "", "") == name
