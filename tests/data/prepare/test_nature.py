"""Birds and other living things are divided, and their classes called, as their tables say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.cli.main import main
from fixres.data.prepare.parts import Options
from fixres.data.prepare.writer import prepare
from fixres.errors import UserError
from tests.support import nature_archives as nature
from tests.support.archive_makers import tar_bytes, write_all, zip_bytes
from tests.support.known_sets import CASES, by_path, prepared, tree


def test_nabirds_is_divided_by_its_table_and_keeps_numbers_and_names(
    shrink: Callable[..., None], tmp_path: Path
) -> None:
    files = nature.nabirds()
    shrink("nabirds", files, *CASES["nabirds"][1:])
    prepared("nabirds", files, tmp_path)
    titmouse, eider = "0817.Oak Titmouse", "1010.Common Eider (Female-juvenile)"
    assert set(by_path(tmp_path / "out")) == {
        *(f"test/{titmouse}/a1b20{i}.jpg" for i in (1, 5)),
        f"test/{eider}/a1b203.jpg",
        f"train/{titmouse}/a1b202.jpg",
        *(f"train/{eider}/a1b20{i}.jpg" for i in (4, 6)),
    }


def test_birdsnap_without_what_flickr_lost_is_said_to_be_a_part(shrink: Callable[..., None], tmp_path: Path) -> None:
    files = nature.birdsnap()
    shrink("birdsnap", files, *CASES["birdsnap"][1:])
    del files["download/images/Blue_Jay/11.jpg"]
    with pytest.raises(UserError, match=r"1 listed picture is not in .*Blue_Jay/11.jpg\n.*--allow-partial"):
        prepared("birdsnap", files, tmp_path)
    report = prepare("birdsnap", tmp_path / "from", tmp_path / "out", options=Options(allow_partial=True))
    assert (report.counts, report.is_complete) == ({"train": 3, "test": 2}, False)
    assert {path for path in by_path(tmp_path / "out") if path.startswith("test/")} == {
        "test/Acadian_Flycatcher/12.jpg",
        "test/Blue_Jay/13.jpg",
    }


@pytest.mark.parametrize("kind", ["packed", "unpacked", "loose tables"])
def test_inaturalist_2017_is_read_packed_and_unpacked(kind: str, shrink: Callable[..., None], tmp_path: Path) -> None:
    files = nature.inat2017()
    shrink("inat2017", files, *CASES["inat2017"][1:])
    pictures, tables = nature._inat(2017, "train_val_images", 940)
    if kind == "unpacked":
        files = pictures | {f"train_val2017/{name}": content for name, content in tables.items()}
    elif kind == "loose tables":
        files = pictures | tables
    prepared("inaturalist2017", files, tmp_path)
    raven = "0003.Corvus corax"
    assert sorted(by_path(tmp_path / "out"))[:3] == [
        f"train/{raven}/train0.jpg",
        f"train/{raven}/train1.jpg",
        "train/0017.Rosa canina/train0.jpg",
    ]
    assert tree(tmp_path / "out")[f"val/{raven}/val0.jpg"] == pictures["train_val_images/Aves/Corvus corax/val0.jpg"]


@pytest.mark.parametrize(
    ("name", "content"), [("train2017.json", b"[1]"), ("train2017.json", b"{"), ("val2017.json", b'{"images": []}')]
)
def test_a_table_of_another_form_is_refused(
    name: str, content: bytes, shrink: Callable[..., None], tmp_path: Path
) -> None:
    pictures, tables = nature._inat(2017, "train_val_images", 940)
    packed = {"train_val_images.tar.gz": tar_bytes(pictures, "w:gz"), "train_val2017.zip": zip_bytes(tables)}
    shrink("inat2017", packed, *CASES["inat2017"][1:])
    with pytest.raises(UserError, match=f"{name} in .* is no table of images, categories and annotations"):
        prepared("inat2017", pictures | tables | {name: content}, tmp_path)


def test_tables_of_nabirds_that_disagree_are_refused(shrink: Callable[..., None], tmp_path: Path) -> None:
    files = {
        "nabirds/images.txt": b"a 0817/a.jpg\n",
        "nabirds/image_class_labels.txt": b"a 5\n",
        "nabirds/train_test_split.txt": b"a 1\n",
        "nabirds/classes.txt": b"817 Oak Titmouse\n",
    }
    shrink("nabirds", {}, *CASES["nabirds"][1:])
    with pytest.raises(UserError, match=r"names class 5, which classes\.txt lacks"):
        prepared("nabirds", files, tmp_path)


def test_the_command_says_where_birds_are_had(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_all(tmp_path, {"images.txt": b"path\n"})
    assert main(["data", "prepare", "birdsnap", "--from", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "get_birdsnap.py" in capsys.readouterr().err
    assert main(["data", "download", "nabirds", "--out", str(tmp_path)]) == 2
    assert "register at the page" in capsys.readouterr().err
