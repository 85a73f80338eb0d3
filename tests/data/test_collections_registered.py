"""Kinds of data: one file each, and one more that a module of the user's own makes known."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.cli.main import main
from fixres.config.recipe import Data
from fixres.data import collections
from fixres.data.collections import absolute_uri, open_collection, register_source, schemes
from fixres.data.decode import Alpha, Exif
from fixres.data.sources.uri import Grammar, Scheme
from fixres.data.splits import Names, Split
from fixres.errors import UserError
from tools.docs.sources_table import sources_table

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "val", "test")
CLASSES = ("blue", "red")


@dataclass(frozen=True)
class Colours:
    """Pictures of one colour; each has a shade of its own."""

    def read(self, path: str, exif: Exif, alpha: Alpha) -> Image.Image:
        """Return the picture that `SPLIT/COLOUR/NUMBER` names."""
        split, colour, number = path.split("/")
        shade = 255 - 80 * SPLITS.index(split) - int(number)
        return Image.new("RGB", (32, 32), (shade, 0, 0) if colour == "red" else (0, 0, shade))

    def stamp(self, paths: Names) -> str:
        """Return nothing: the pictures never change."""
        return ""


def open_mine(data: Data, body: str) -> tuple[str, dict[str, Split], list[str]]:
    """Open `mine:N`, N pictures in each split."""
    if not body.isdecimal():
        raise UserError(f"mine:{body} is no number of pictures\n  for example mine:8")
    labels = np.arange(int(body), dtype=np.int64) % 2
    return (
        f"mine:{body}",
        {
            name: Split(
                name,
                CLASSES,
                labels,
                Names(f"{name}/{CLASSES[label]}/{number}" for number, label in enumerate(labels.tolist())),
                Colours(),
                data.exif,
                data.alpha,
            )
            for name in SPLITS
        },
        [],
    )


MINE = Scheme("mine", "mine:N", "red and blue pictures", open_mine)


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "_REGISTERED", [])
    register_source(MINE)


@pytest.mark.usefixtures("mine")
def test_a_registered_source_opens_as_the_others_do() -> None:
    collection = open_collection(Data(uri="mine:8"))
    assert (collection.classes, collection.select, collection.report) == (CLASSES, "val", "test")
    assert collection.split("val").read(1).getpixel((0, 0)) == (174, 0, 0)
    assert absolute_uri("mine:8") == "mine:8"
    with pytest.raises(UserError, match="no number of pictures"):
        open_collection(Data(uri="mine:few"))


@pytest.mark.usefixtures("mine")
def test_commands_take_a_registered_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "mine:8", "--workers", "2"]) == 0
    assert "mine:8" in capsys.readouterr().out
    assert main(["data", "check", "mien:8"]) == 2
    told = capsys.readouterr().err
    assert "unknown kind of data 'mien:' in mien:8 - did you mean 'mine'?" in told
    assert "synthetic:classes=4, mine:N" in told


@pytest.mark.usefixtures("mine")
def test_a_grammar_gives_settings_and_absolute_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    register_source(Scheme("other", "other:FILE", "", open_mine, Grammar("other:FILE?root=DIR", ("root",), ("root",))))
    assert absolute_uri("other:a?root=b") == f"other:{tmp_path}/a?root={tmp_path}/b"
    with pytest.raises(UserError, match="other: has no setting 'rot' - did you mean 'root'"):
        absolute_uri("other:a?rot=b")


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(("name", "message"), [("mine", "already"), ("csv", "already"), ("x", "name"), ("My", "name")])
def test_names_that_are_taken_or_cannot_be_written(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        register_source(Scheme(name, f"{name}:", "", open_mine))


def test_a_folder_imports_no_other_source(photos: Path) -> None:
    code = (
        "import sys; from fixres.config.recipe import Data; from fixres.data.collections import open_collection;"
        f"open_collection(Data(uri={str(photos)!r}));"
        "sys.exit(bool({'datasets', 'fsspec', 'fixres.data.sources.torchvision', 'fixres.data.sources.hub',"
        "'fixres.data.sources.shards'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_table_of_the_page_about_data_is_the_codes() -> None:
    assert sources_table() in (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert [scheme.name for scheme in schemes()] == ["folder", "csv", "torchvision", "hf", "wds", "elpv", "synthetic"]
