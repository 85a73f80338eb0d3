"""`fixres data check`: a folder with one of each fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.inspect.check import check
from fixres.data.inspect.statistics import statistics
from fixres.data.sources import folder
from fixres.errors import UserError
from tests.support.scenes import jpeg, look, paths, put, scene


def test_a_sound_folder_has_nothing_to_report(sound: Path) -> None:
    report = look(sound)
    assert (report.count("error"), report.count("warning")) == (0, 0), report.as_text()
    assert report.num_images == {"train": 24, "test": 8}
    assert report.measures["formats"] == {"JPEG": 32}
    # 160 x 120 at crop ratio 0.875: 1 - 0.875^2 * 3/4.
    assert report.measures["mean_crop_loss_ratio"] == pytest.approx(1 - 0.875**2 * 0.75)


def test_one_of_each_fault_is_named(sound: Path) -> None:
    train, test = sound / "train", sound / "test"
    whole = jpeg(scene(500))
    put(train / "cat" / "empty.jpg", b"")
    put(train / "cat" / "cut.jpg", whole[: len(whole) // 2])
    put(train / "cat" / "text.jpg", b"<html>404 not found</html>")
    scene(511).save(train / "cat" / "hurt.png")
    put(train / "cat" / "hurt.png", (train / "cat" / "hurt.png").read_bytes().replace(b"IDAT", b"IDAT\xff\xff", 1))
    put(train / "cat" / "renamed.png", jpeg(scene(501)))
    put(train / "cat" / "again.jpg", (train / "cat" / "03.jpg").read_bytes())
    put(train / "dog" / "other.jpg", (train / "cat" / "04.jpg").read_bytes())
    put(test / "cat" / "seen.jpg", (train / "cat" / "05.jpg").read_bytes())
    put(test / "cat" / "smaller.jpg", jpeg(scene(12).resize((80, 60)), 70))
    put(train / "dog" / "long.jpg", jpeg(scene(502, 500, 50)))
    put(train / "owl" / "only.jpg", jpeg(scene(503)))
    put(test / "dgo" / "typo.jpg", jpeg(scene(504)))
    for i in range(5):
        put(train / "dog" / f"notes{i}.txt", b"labelled by hand")
    put(train / "dog" / "live.heic", b"\0\0\0\x18ftypheic")
    put(train / "nowhere.jpg", jpeg(scene(520)))
    put(train / "cat" / "inside.jpg", whole[:1500] + bytes(200) + whole[1700:])
    put(train / "cat" / "phone.jpg", b"\0\0\0\x18ftypheic" + bytes(100))
    put(train / "dog" / "tiny.jpg", jpeg(scene(505, 40, 40)))
    scene(506).convert("CMYK").save(train / "dog" / "cmyk.jpg")
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16).save(train / "dog" / "deep.png")
    scene(507).convert("RGBA").save(train / "dog" / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    put(train / "dog" / "phone.jpg", jpeg(scene(508), exif=exif))
    frames = [scene(509).convert("P"), scene(510).convert("P")]
    frames[0].save(train / "dog" / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (64, 64), "red").save(train / "dog" / "plain.png")

    report = look(sound, sizes=(60,))
    assert set(report.findings) == set(BY_KIND) | {"classes differ", "missing class", "few pictures", "passed over"}
    assert {kind: paths(report, kind) for kind in BY_KIND} == BY_KIND
    assert [item.detail for item in report.findings["classes differ"]] == ["test: dgo, 1 picture - did you mean 'dog'?"]
    assert [item.detail for item in report.findings["missing class"]] == ["test: owl"]
    assert [item.detail for item in report.findings["few pictures"]] == ["owl, 1"]
    assert paths(report, "passed over") == [
        ("train/dog/live.heic",),
        *[(f"train/dog/notes{i}.txt",) for i in range(5)],
        ("train/nowhere.jpg",),
    ]
    assert report.findings["extreme aspect"][0].detail == "500 x 50, the crop throws away 92%"
    assert report.findings["wrong type"][0].detail == "is JPEG"
    text = report.as_text()
    assert [kind for kind in report.findings if f"  {kind}  " not in text] == []
    stored = json.loads(report.as_json())
    assert stored["num_errors"] == 8
    kinds = {entry["kind"]: entry for entry in stored["findings"]}
    assert kinds["leak"]["num"] == 1
    assert len(kinds["passed over"]["items"]) == 7
    assert "train/dog/live.heic (HEIC, convert to JPEG first" in text
    assert "and 4 more" in text
    assert "HEIC is not a picture format that is read here" in report.findings["not a picture"][0].detail
    assert "Corrupt JPEG data" in report.findings["damaged inside"][0].detail
    assert kinds["damaged inside"]["severity"] == "warning"


BY_KIND: dict[str, list[tuple[str, ...]]] = {
    "empty": [("train/cat/empty.jpg",)],
    "truncated": [("train/cat/cut.jpg",)],
    "damaged": [("train/cat/hurt.png",)],
    "not a picture": [("train/cat/phone.jpg",), ("train/cat/text.jpg",)],
    "damaged inside": [("train/cat/inside.jpg",)],
    "leak": [("test/cat/seen.jpg", "train/cat/05.jpg")],
    "conflicting labels": [("train/cat/04.jpg", "train/dog/other.jpg")],
    "near-duplicate": [("test/cat/smaller.jpg", "train/cat/06.jpg")],
    "duplicate": [("train/cat/again.jpg", "train/cat/03.jpg")],
    "wrong type": [("train/cat/renamed.png",)],
    "extreme aspect": [("train/dog/long.jpg",)],
    "smaller than the size": [("train/dog/long.jpg",), ("train/dog/tiny.jpg",)],
    "no contrast": [("train/dog/plain.png",)],
    "grey": [("train/dog/deep.png",)],
    "CMYK": [("train/dog/cmyk.jpg",)],
    "16 bit": [("train/dog/deep.png",)],
    "transparency": [("train/dog/clear.png",)],
    "animation": [("train/dog/moving.gif",)],
    "turned by EXIF": [("train/dog/phone.jpg",)],
}


def test_more_pixels_than_will_be_decoded_are_named(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixres.data.decode.MAX_PIXELS", 160 * 120)
    put(sound / "train" / "cat" / "huge.png", b"")
    scene(7, 161, 120).save(sound / "train" / "cat" / "huge.png")
    assert paths(look(sound), "too large") == [("train/cat/huge.png",)]


def test_a_file_that_may_not_be_read_is_named(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = folder.read_file

    def refuse(path: Path, name: str) -> bytes:
        if path.name == "03.jpg":
            raise PermissionError(13, "Permission denied")
        return read(path, name)

    monkeypatch.setattr(folder, "read_file", refuse)
    report = look(sound)
    assert paths(report, "unreadable") == [
        (f"{part}/03.jpg",) for part in ("train/cat", "train/dog", "test/cat", "test/dog")
    ]
    assert report.findings["unreadable"][0].detail == "cannot be read (Permission denied)"


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda root: (root / "train" / "bird").mkdir(), "no pictures in the class folder bird"),
        (lambda root: shutil.copytree(root / "test", root / "validation") and (root / "valid").mkdir(), ""),
        (lambda root: [shutil.copytree(root / "test", root / name) for name in ("val", "valid")], "both val and valid"),
        (lambda root: shutil.rmtree(root / "train" / "dog"), "only one class (cat)"),
        (lambda root: [(root / a / "dog").rename(root / a / "do\udce9") for a in ("train", "test")], "is no UTF-8"),
        (lambda root: [(root / a).rename(root / f"{a}set") for a in ("train", "test")], "testset, trainset, which"),
    ],
)
def test_what_a_folder_is_refused_for_is_a_finding(sound: Path, break_it: Callable[[Path], object], said: str) -> None:
    break_it(sound)
    report = look(sound)
    details = [item.detail for item in report.findings.get("layout", [])]
    assert [said in detail for detail in details] == ([True] if said else []), details
    assert report.num_images["train"] in (12, 19, 24)


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        look(tmp_path / "missing")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        look(tmp_path / "bare")


def test_a_folder_without_splits_is_looked_at_as_it_would_be_carved(sound: Path) -> None:
    twice = {name: sound / "train" / "cat" / name for name in ("00.jpg", "01.jpg", "02.jpg", "03.jpg", "04.jpg")}
    for name, path in twice.items():
        put(path.with_name(f"copy-{name}"), path.read_bytes())
    report = look(sound / "train")
    assert set(report.num_images) == {"train", "val", "test"}
    # Five pairs fall into the same part or into two; no pair is lost.
    leaks, same = paths(report, "leak"), paths(report, "duplicate")
    assert len(leaks) + len(same) == 5
    assert leaks, "no pair of five in two parts"
    assert report.remarks[0].startswith("no splits of its own")


def test_workers_change_nothing(sound: Path) -> None:
    put(sound / "train" / "cat" / "cut.jpg", jpeg(scene(3))[:700])
    put(sound / "test" / "cat" / "smaller.jpg", jpeg(scene(12).resize((80, 60)), 70))
    told: list[tuple[int, int]] = []
    data = Data(uri=str(sound))
    alone = check(data, 0)
    shared = check(data, 2, progress=lambda done, total: told.append((done, total)))
    assert alone.as_json() == shared.as_json()
    assert told[-1] == (34, 34)
    assert statistics(data, 0).as_json() == statistics(data, 2).as_json()


def test_sources_without_files_are_compared_by_their_pixels() -> None:
    # Every class has the same drawn pictures only when the generator repeats itself: it does not.
    report = check(Data(uri="synthetic:classes=3,images=30,size=48"), 0)
    assert report.count("error") == 0
    assert report.measures["formats"] == {"no file": 50}
