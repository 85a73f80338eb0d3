"""The picture files of a run are kept when it begins and compared when it goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fixres.config.recipe import Data, Recipe
from fixres.data.collections import open_collection
from fixres.errors import UserError
from fixres.runtime.run_folder import read_events
from fixres.training.picture_files import FILE_NAME, Look, look_at_files, read_files, write_files
from fixres.training.run import run_recipe
from fixres.training.start_checks import AS_USUAL, StartChecks
from tests.support.tar_shards import three

CHECK, ACCEPT = StartChecks(check_data=True), StartChecks(accept_data=True)


def look(run: Path, photos: Path | str, checks: StartChecks = AS_USUAL, *, is_resumed: bool = True) -> Look:
    splits = open_collection(Data(uri=str(photos))).splits
    return look_at_files(splits, run, is_resumed, checks, lambda what, done, total: None)


def begin(run: Path, photos: Path | str, checks: StartChecks = AS_USUAL) -> None:
    found = look(run, photos, checks, is_resumed=False)
    assert found.is_new
    assert not found.notes
    write_files(run, found.files)


def overwrite(picture: Path, *, size: int | None = None, later: int = 1) -> None:
    """Write other bytes, as many as before if `size` is None, `later` nanoseconds after."""
    before = picture.stat()
    picture.write_bytes(bytes(before.st_size if size is None else size))
    os.utime(picture, ns=(before.st_mtime_ns + later, before.st_mtime_ns + later))


def test_what_was_written_is_read_back(tmp_path: Path, photos: Path) -> None:
    (photos / "train" / "red" / "00.jpg").rename(photos / "train" / "red" / "caf\udce9.jpg")
    begin(tmp_path, photos, CHECK)
    found, kept = look(tmp_path, photos, CHECK).files, read_files(tmp_path)
    assert found.keys() == kept.keys() == {"train", "holdout", "val"}
    for name, files in kept.items():
        assert files.names == found[name].names
        assert_array_equal(files.states, found[name].states)
        assert files.hashes is not None
        assert_array_equal(files.hashes, np.asarray(found[name].hashes))
    assert sum(len(files.names) for files in kept.values()) == 34


def test_files_that_are_the_same_cost_no_word(tmp_path: Path, photos: Path) -> None:
    begin(tmp_path, photos)
    found = look(tmp_path, photos)
    assert (found.notes, found.is_new) == ((), False)


def test_another_size_is_refused_with_how_many_and_one_of_them(tmp_path: Path, photos: Path) -> None:
    begin(tmp_path, photos)
    for name in ("03", "05"):
        overwrite(photos / "train" / "red" / f"{name}.jpg", size=1234, later=0)
    message = (
        r"^2 of 34 picture files changed since the run began, for example train/red/0[35]\.jpg \([\d,]+ bytes then, "
        r"1,234 bytes now\)\n  bring back the pictures, start again in another folder with --out, .* add --accept-data$"
    )
    with pytest.raises(UserError, match=message):
        look(tmp_path, photos)


def test_accepted_files_are_those_of_the_next_comparison(tmp_path: Path, photos: Path) -> None:
    begin(tmp_path, photos, CHECK)
    overwrite(photos / "train" / "red" / "03.jpg", size=1234)
    accepted = look(tmp_path, photos, ACCEPT)
    assert len(accepted.notes) == 1
    assert accepted.notes[0].startswith("1 of 34 picture files changed since the run began, for example train/red/03")
    write_files(tmp_path, accepted.files)
    assert not look(tmp_path, photos).notes
    # Hashes were kept, so that of the accepted file is made anew.
    assert look(tmp_path, photos, CHECK).notes == ("34 of 34 picture files have the same contents as before",)


def test_another_time_alone_costs_one_note_once(tmp_path: Path, photos: Path) -> None:
    begin(tmp_path, photos)
    overwrite(photos / "val" / "blue" / "01.jpg")
    found = look(tmp_path, photos)
    assert found.notes == (
        "1 of 34 picture files have another time of change than before and the same size, for example "
        "val/blue/01.jpg; contents were not compared",
    )
    write_files(tmp_path, found.files)
    assert not look(tmp_path, photos).notes


def test_check_data_finds_other_content_of_the_same_size_and_time(tmp_path: Path, photos: Path) -> None:
    begin(tmp_path, photos, CHECK)
    overwrite(photos / "val" / "blue" / "01.jpg", later=0)
    assert not look(tmp_path, photos).notes
    with pytest.raises(UserError, match=r"^1 of 34 .* val/blue/01\.jpg \(the same size, other content\)\n"):
        look(tmp_path, photos, CHECK)


def test_check_data_has_to_be_asked_for_when_the_run_begins(tmp_path: Path, photos: Path) -> None:
    for _ in ("nothing kept, as by 0.1.0", "sizes and times kept"):
        with pytest.raises(
            UserError, match=r"keeps no hashes .* not started with --check-data\n  leave --check-data out"
        ):
            look(tmp_path, photos, CHECK)
        begin(tmp_path, photos)


def test_a_run_that_kept_nothing_goes_on_and_keeps_from_then_on(tmp_path: Path, photos: Path) -> None:
    found = look(tmp_path, photos)
    assert (found.notes, found.is_new) == ((), True)
    assert len(found.files["val"].names) == 10


def test_a_damaged_list_names_itself_and_what_to_do(tmp_path: Path, photos: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"PK\3\4 no archive")
    with pytest.raises(UserError, match=rf"{FILE_NAME} cannot be read\n  delete it to go on"):
        look(tmp_path, photos)


def test_of_shards_the_shards_are_compared(tmp_path: Path) -> None:
    shards = three(tmp_path / "shards")
    uri = f"wds:{shards}/train-{{0000..0001}}.tar"
    begin(tmp_path, uri)
    # One list serves train, val and test, which are carved out of the same shards.
    assert [list(files.names) for files in read_files(tmp_path).values()] == [["train-0000.tar", "train-0001.tar"]]
    with (shards / "train-0001.tar").open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(UserError, match=r"^1 of 2 picture files changed .* for example train-0001\.tar"):
        look(tmp_path, uri)


def test_pictures_that_are_no_files_are_not_compared(tmp_path: Path) -> None:
    synthetic = "synthetic:classes=2,images=24"
    assert look(tmp_path, synthetic).notes == ()
    assert look(tmp_path, synthetic, CHECK, is_resumed=False).notes == (
        "--check-data: the pictures are no files of this machine, so there is nothing to compare",
    )


def test_a_run_refuses_overwritten_pictures_and_is_left_as_it_was(
    make_recipe: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(
        data={"uri": f"folder:{photos}", "holdout": 0}, train={"size": 32, "epochs": 1, "batch_size": 8}
    )
    run = tmp_path / "r"
    run_recipe(recipe, run)
    (run / "status.json").unlink()
    shutil.copyfile(photos / "train" / "red" / "01.jpg", photos / "train" / "red" / "00.jpg")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="1 of 34 picture files changed"):
        run_recipe(recipe, run, resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    run_recipe(recipe, run, resume=True, checks=ACCEPT)
    notes = [event["text"] for event in read_events(run) if event["event"] == "note"]
    assert [note.startswith("1 of 34 picture files changed since the run began") for note in notes] == [True]
