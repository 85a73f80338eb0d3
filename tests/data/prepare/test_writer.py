"""A preparation that is killed, starved or lied to: whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixres.data.prepare import writer
from fixres.data.prepare.known_sets import SETS
from fixres.data.prepare.parts import Options
from fixres.data.prepare.writer import prepare
from fixres.errors import UserError
from fixres.io import archives
from tests.support import archive_makers as made
from tests.support.known_sets import shrink_cub, tree


class Stop(BaseException):
    pass


def stopping_at(number: int) -> Callable[[Path, bytes], int]:
    """Path.write_bytes that stops at one picture, counted from 0."""
    original, left = Path.write_bytes, [number]

    def stopping(self: Path, content: bytes) -> int:
        if self.name == ".incoming":
            if left[0] == 0:
                raise Stop
            left[0] -= 1
        return original(self, content)

    return stopping


@pytest.mark.parametrize("call", ["write_bytes", "replace"])
def test_an_interruption_at_any_picture_is_gone_on_from(
    call: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare("cub", source, tmp_path / "whole")
    original = getattr(Path, call)
    for n in range(6):
        left = [n]

        def failing(self: Path, *args: Any, left: list[int] = left) -> Any:
            if self.name == ".incoming":
                if left[0] == 0:
                    raise Stop
                left[0] -= 1
            return original(self, *args)

        out = tmp_path / f"out{n}"
        with monkeypatch.context() as patch:
            patch.setattr(Path, call, failing)
            with pytest.raises(Stop):
                prepare("cub", source, out)
        assert not out.exists()
        report = prepare("cub", source, out)
        assert report.num_resumed == n
        assert tree(out) == tree(tmp_path / "whole")
    assert not [path.name for path in tmp_path.iterdir() if ".part" in path.name]


@pytest.mark.parametrize("step", ["record", "sync", "journal"])
def test_an_interruption_at_the_end_is_gone_on_from(
    step: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_json, unlink = writer.write_json, Path.unlink

    def stop_at_record(path: Path, content: Any) -> None:
        if path.name == writer.RECORD:
            raise Stop
        write_json(path, content)

    def stop_at_journal(path: Path, **options: bool) -> None:
        if path.name == "out.part.json":
            raise Stop
        unlink(path, **options)

    def stop() -> None:
        raise Stop

    with monkeypatch.context() as patch:
        if step == "record":
            patch.setattr(writer, "write_json", stop_at_record)
        elif step == "sync":
            patch.setattr("os.sync", stop)
        else:
            patch.setattr(Path, "unlink", stop_at_journal)
        with pytest.raises(Stop):
            prepare("cub", source, out)
    assert out.exists() is (step == "journal")
    report = prepare("cub", source, out)
    assert report.was_there is (step == "journal")
    prepare("cub", source, tmp_path / "whole")
    assert tree(out) == tree(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "out", "whole"]


CHILD = """
import sys, pathlib
sys.path.insert(0, {repository!r})
from fixres.data.prepare import writer
from tests.support.known_sets import shrink_cub
source = pathlib.Path(sys.argv[1])
shrink_cub({{"CUB_200_2011.tgz": (source / "CUB_200_2011.tgz").read_bytes()}})
import time
put = writer._Work._put
def slow(self, picture):
    put(self, picture)
    time.sleep(0.15)
writer._Work._put = slow
writer.prepare("cub", source, pathlib.Path(sys.argv[2]))
"""


def test_a_killed_process_is_gone_on_from(source: Path, tmp_path: Path) -> None:
    code = CHILD.format(repository=str(Path(__file__).parents[3]))
    process = subprocess.Popen([sys.executable, "-c", code, str(source), str(tmp_path / "out")], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out.part").rglob("*.jpg"))) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    # Meanwhile nobody else may make the same.
    with pytest.raises(UserError, match="another process is preparing"):
        prepare("cub", source, tmp_path / "out")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out").exists()
    report = prepare("cub", source, tmp_path / "out")
    assert 3 <= report.num_resumed <= 6
    prepare("cub", source, tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_picture_cut_short_by_a_power_failure_is_written_again(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        prepare("cub", source, tmp_path / "out", _stop_at_end)
    victim = next((tmp_path / "out.part").rglob("*.jpg"))
    victim.write_bytes(victim.read_bytes()[:20])
    report = prepare("cub", source, tmp_path / "out")
    assert report.num_resumed == 5
    prepare("cub", source, tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def _stop_at_end(what: str, done: int, total: int | None) -> None:
    if what == "writing pictures":
        assert (done, total) == (6, 6)
        raise Stop


def test_checksums_are_taken_once(source: Path, tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(Stop):
        prepare("cub", source, tmp_path / "out", _stop_at_end)
    prepare("cub", source, tmp_path / "out", lambda what, *_: told.append(what))
    assert not [what for what in told if "checking" in what]


def test_other_files_or_options_do_not_mix(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        prepare("cub", source, tmp_path / "out", _stop_at_end)
    os.utime(source / "CUB_200_2011.tgz", (1, 1))
    with pytest.raises(UserError, match="begun from other files"):
        prepare("cub", source, tmp_path / "out")
    shutil.rmtree(tmp_path / "out.part")
    assert prepare("cub", source, tmp_path / "out").num_resumed == 0


def test_what_is_in_the_way_is_left_alone(source: Path, tmp_path: Path) -> None:
    for name in ("busy", "stray.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        prepare("cub", source, tmp_path / "busy")
    with pytest.raises(UserError, match="is in the way"):
        prepare("cub", source, tmp_path / "stray")
    assert (tmp_path / "stray.part" / "mine.txt").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        prepare("cub", source, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert prepare("cub", source, tmp_path / "empty").counts["train"] == 3
    next((tmp_path / "empty").rglob("*.jpg")).unlink()
    with pytest.raises(UserError, match="was made with"):
        prepare("cub", source, tmp_path / "empty")


def test_a_file_that_is_not_the_published_one(source: Path, tmp_path: Path) -> None:
    archive = source / "CUB_200_2011.tgz"
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"(?s)published file: MD5 \w{32} expected, \w{32} found.*--allow-partial"):
        prepare("cub", source, tmp_path / "out")
    # Nothing was begun that would stand in the way of the right file.
    made.write_all(source, made.cub())
    assert prepare("cub", source, tmp_path / "out").checksums == {"CUB_200_2011.tgz": "as published"}
    archive.write_bytes(archive.read_bytes() + b"\0")
    report = prepare("cub", source, tmp_path / "other", options=Options(allow_partial=True))
    assert report.checksums == {"CUB_200_2011.tgz": "not as published"}
    assert any("not the published file" in note for note in report.notes)


def test_wrong_counts(source: Path, tmp_path: Path) -> None:
    SETS["cub-200-2011"] = dataclasses.replace(SETS["cub-200-2011"], counts={"train": 5994, "test": 3}, num_classes=200)
    with pytest.raises(
        UserError, match=r"train 5,994, test 3 expected, train 3, test 3 found; 200 classes expected, 2 found in t"
    ):
        prepare("cub", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report = prepare("cub", source, tmp_path / "out", options=Options(allow_partial=True))
    assert (report.num_resumed, report.is_complete) == (6, False)
    assert any("5,994" in note for note in report.notes)


@pytest.mark.parametrize("name", ["cub", "stanford-cars"])
def test_a_folder_of_something_else_is_no_part_of_a_set(name: str, photos: Path, tmp_path: Path) -> None:
    (photos / "val").rename(photos / "test")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"(?s)train is not .*: it has the class folder 'blue'.*--data\.uri .*photos"):
        prepare(name, photos, tmp_path / "out", options=Options(allow_partial=True))
    assert sorted(tmp_path.iterdir()) == before


def test_more_classes_than_published_or_no_pictures_are_no_part_of_a_set(photos: Path, tmp_path: Path) -> None:
    (photos / "train").rename(tmp_path / "256_ObjectCategories")
    for k in range(257):
        folder = tmp_path / "256_ObjectCategories" / f"{k}"
        folder.mkdir()
        shutil.copy(tmp_path / "256_ObjectCategories" / "red" / "00.jpg", folder / "a.jpg")
    (tmp_path / "caltech-101").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"not even a part of it: 256 classes expected, 259 found"):
        prepare("caltech256", tmp_path, tmp_path / "out", options=Options(allow_partial=True))
    with pytest.raises(UserError, match=r"caltech-101 is not Caltech-101, .* no pictures found"):
        prepare("caltech101", tmp_path, tmp_path / "out", options=Options(allow_partial=True))
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(writer.shutil, "disk_usage", lambda _: usage._replace(free=100))
        with pytest.raises(UserError, match=r"0\.0 GB are needed in .*, 0\.0 GB are free"):
            prepare("cub", source, tmp_path / "out")
    original = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name == ".incoming" and len(list((tmp_path / "out.part").rglob("*.jpg"))) == 2:
            original(self, content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match=r"(?s)is full.*the same command goes on"):
            prepare("cub", source, tmp_path / "out")
    assert prepare("cub", source, tmp_path / "out").num_resumed == 2


def test_a_packed_tar_does_not_fill_the_disk(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    free = 2 * (source / "CUB_200_2011.tgz").stat().st_size
    names = [f"images/001.Black_footed_Albatross/{k}.jpg" for k in range(4)]
    texts = {
        "classes.txt": "1 001.Black_footed_Albatross\n",
        "images.txt": "".join(f"{k} {name.removeprefix('images/')}\n" for k, name in enumerate(names)),
        "train_test_split.txt": "".join(f"{k} 1\n" for k in range(4)),
    }
    files = {name: text.encode() for name, text in texts.items()} | {name: bytes(free // 2 - 1) for name in names}
    archive = made.tar_bytes({f"CUB_200_2011/{name}": content for name, content in files.items()}, "w:gz")
    (source / "CUB_200_2011.tgz").write_bytes(archive)
    out, partly = tmp_path / "out", Options(allow_partial=True)

    def disk(folder: Path) -> Any:
        return usage._replace(free=free - sum(path.stat().st_size for path in Path(folder).rglob("*.jpg")))

    with monkeypatch.context() as patch:
        patch.setattr(writer.shutil, "disk_usage", disk)
        with pytest.raises(UserError, match=r"(?s)are needed in .* are free.*the same command goes on"):
            prepare("cub", source, out, options=partly)
    assert len(list((tmp_path / "out.part").rglob("*.jpg"))) == 2
    assert prepare("cub", source, out, options=partly).num_resumed == 2


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_packed_tar_that_was_made_to_fill_a_disk_leaves_nothing(
    is_begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREELY_UNPACKED_BYTES", 2**20)
    # Under this name there is no published checksum, so that nothing but its size tells.
    rows = {f"101_ObjectCategories/ant/{k}.jpg": bytes(2**18) for k in range(20)}
    (tmp_path / "101_ObjectCategories.tar.gz").write_bytes(made.tar_bytes(rows, "w:gz"))
    before = sorted(tmp_path.iterdir())
    if is_begun:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", stopping_at(2))
            with pytest.raises(Stop):
                prepare("caltech101", tmp_path, tmp_path / "out")
        assert len(list((tmp_path / "out.part").rglob("*.jpg"))) == 2
    for options in (Options(), Options(allow_partial=True)):
        with pytest.raises(UserError, match="unpacks to more than 100 times as many"):
            prepare("caltech101", tmp_path, tmp_path / "out", options=options)
        assert sorted(tmp_path.iterdir()) == before


def test_a_zip_is_measured_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {f"tiny-imagenet-200/train/n01440764/images/{k}.JPEG": bytes(2**18) for k in range(20)}
    rows["tiny-imagenet-200/val/val_annotations.txt"] = b""
    (tmp_path / "tiny-imagenet-200.zip").write_bytes(made.zip_bytes(rows))
    before, partly = sorted(tmp_path.iterdir()), Options(allow_partial=True)

    monkeypatch.setattr(Path, "write_bytes", stopping_at(0))
    with pytest.raises(UserError, match="is not the published file"):
        prepare("tiny-imagenet-200", tmp_path, tmp_path / "out")
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(writer.shutil, "disk_usage", lambda _: usage._replace(free=5 * 2**20))
        with pytest.raises(UserError, match=r"about 0\.0 GB are needed in .*, 0\.0 GB are free"):
            prepare("tiny-imagenet-200", tmp_path, tmp_path / "out", options=partly)
    monkeypatch.setattr(archives, "FREELY_UNPACKED_BYTES", 2**20)
    with pytest.raises(UserError, match="unpacks to more than 100 times as many"):
        prepare("tiny-imagenet-200", tmp_path, tmp_path / "out", options=partly)
    assert sorted(tmp_path.iterdir()) == before


def test_a_set_that_lists_more_than_it_holds(source: Path, tmp_path: Path) -> None:
    members = {}
    with tarfile.open(source / "CUB_200_2011.tgz") as tar:
        for entry in tar.getmembers():
            if entry.isreg() and not entry.name.endswith("Laysan_Albatross_0001.jpg"):
                members[entry.name] = (tar.extractfile(entry) or io.BytesIO()).read()
    (source / "CUB_200_2011.tgz").write_bytes(made.tar_bytes(members, "w:gz"))
    shrink_cub({"CUB_200_2011.tgz": (source / "CUB_200_2011.tgz").read_bytes()})
    with pytest.raises(UserError, match=r"1 listed picture is not in .*Laysan_Albatross_0001\.jpg"):
        prepare("cub", source, tmp_path / "out")
    assert prepare("cub", source, tmp_path / "out", options=Options(allow_partial=True)).counts == {
        "train": 3,
        "test": 2,
    }
