"""`fixres data check` and `stats`: a folder with one of each fault, look-alikes, and exact numbers."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.decode import BadImage
from fixres.data.inspect import scan
from fixres.data.inspect.check import check
from fixres.data.inspect.check_report import Report
from fixres.data.inspect.near_duplicates import HASH_LIMIT, close_pairs, likeness_hash, thumbnail
from fixres.data.inspect.statistics import statistics, useful_train_size
from fixres.data.transforms import evaluation_crop
from fixres.errors import UserError
from fixres.resolution import Preprocess


def scene(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Return a picture with structure at every scale, different for every seed."""
    generator = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for side in (3, 6, 12, 24, 48):
        noise = Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    return Image.fromarray((total / 5).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 92, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Return a folder without a fault: two classes, 12 training and 4 test pictures of each."""
    root = tmp_path / "sound"
    for split, first, count in (("train", 0, 12), ("test", 100, 4)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                put(root / split / name / f"{i:02}.jpg", jpeg(scene(first + 2 * i + label)))
    return root


def paths(report: Report, kind: str) -> list[tuple[str, ...]]:
    return [tuple(place.path for place in item.pictures) for item in report.findings.get(kind, [])]


def look(root: Path, **options: Any) -> Report:
    return check(Data(uri=f"folder:{root}"), 0, **options)


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
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "03.jpg":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
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


def _die(split: object, places: range) -> None:
    os._exit(9)


def test_a_killed_process_is_said(sound: Path) -> None:
    report = scan.in_chunks({"train": _open(sound)}, _die, 2)
    with pytest.raises(UserError, match="killed"):
        list(report)


def _open(root: Path) -> Any:
    from fixres.data.collections import open_splits

    return open_splits(Data(uri=str(root)))[1]["train"]


def test_sources_without_files_are_compared_by_their_pixels() -> None:
    # Every class has the same drawn pictures only when the generator repeats itself: it does not.
    report = check(Data(uri="synthetic:classes=3,images=30,size=48"), 0)
    assert report.count("error") == 0
    assert report.measures["formats"] == {"no file": 50}


# --- look-alikes


@pytest.mark.parametrize(
    "change",
    [
        lambda image: Image.open(io.BytesIO(jpeg(image, 60))),
        lambda image: image.resize((image.width // 2, image.height // 2)),
        lambda image: image.point(lambda value: int(value * 0.8)),
        lambda image: Image.open(io.BytesIO(jpeg(image.resize((image.width * 2, image.height * 2)), 75))),
    ],
    ids=["recompressed", "halved", "darker", "doubled"],
)
def test_copies_are_found_whatever_was_done_to_them(sound: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    for i in range(6):
        put(sound / "test" / "cat" / f"copy{i}.jpg", jpeg(change(scene(2 * i))))
    assert paths(look(sound), "near-duplicate") == [
        (f"test/cat/copy{i}.jpg", f"train/cat/{i:02}.jpg") for i in range(6)
    ]


def test_pictures_of_one_kind_are_not_called_copies(tmp_path: Path) -> None:
    # The same frame around different marks: alike at a glance, told apart by their details.
    frame = np.asarray(scene(1, 128, 128)).astype(int)
    for i in range(30):
        marks = np.random.default_rng(i).integers(-40, 40, (16, 16, 1)).repeat(8, 0).repeat(8, 1)
        picture = Image.fromarray((frame + marks).clip(0, 255).astype(np.uint8))
        put(tmp_path / ("train" if i < 20 else "test") / "ab"[i % 2] / f"{i}.jpg", jpeg(picture))
    assert paths(look(tmp_path), "near-duplicate") == []


@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2**64 - 1)), max_size=8),
    st.integers(0, 8),
)
@settings(max_examples=200, deadline=None)
def test_close_pairs_are_those_of_a_full_comparison(
    references: list[int], changes: list[tuple[int, int]], limit: int
) -> None:
    # Queries near a reference (few bits changed) and far from all.
    queries = [references[k] ^ (1 << bits % 64) ^ (1 << bits % 61) for k, bits in changes if k < len(references)]
    queries += [bits for _, bits in changes]
    found = close_pairs(np.array(references, dtype=np.uint64), np.array(queries, dtype=np.uint64), limit, most=99)
    expected = {(i, j) for j, b in enumerate(queries) for i, a in enumerate(references) if (a ^ b).bit_count() <= limit}
    assert set(map(tuple, found.tolist())) == expected
    assert len(found) == len(expected)


def test_a_flood_of_equal_pictures_stays_small() -> None:
    pairs = close_pairs(np.zeros(20_000, dtype=np.uint64), np.zeros(5_000, dtype=np.uint64), HASH_LIMIT, most=20)
    assert len(pairs) == 5_000 * 20


def test_the_hash_survives_a_resize_and_tells_pictures_apart() -> None:
    hashes = [likeness_hash(thumbnail(scene(seed))) for seed in range(20)]
    for seed, own in enumerate(hashes):
        smaller = likeness_hash(thumbnail(scene(seed).resize((80, 60))))
        assert (own ^ smaller).bit_count() <= HASH_LIMIT
        assert all((own ^ other).bit_count() > HASH_LIMIT for other in hashes[:seed])


# --- statistics


def test_mean_and_std_are_those_of_every_pixel(sound: Path) -> None:
    found = statistics(Data(uri=str(sound)), 0, size=32)
    split = _open(sound)
    views = [evaluation_crop(split.read(i), Preprocess(32, crop_ratio=1.0)).numpy() for i in range(len(split))]
    pixels = np.stack(views).transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert found.mean == pytest.approx(pixels.mean(axis=1), abs=1e-12)
    assert found.std == pytest.approx(pixels.std(axis=1), abs=1e-12)
    assert found.measured_on == "train"


def test_counts_sizes_and_weights(sound: Path) -> None:
    for i in range(9, 12):
        (sound / "train" / "dog" / f"{i:02}.jpg").unlink()
    put(sound / "train" / "dog" / "00.jpg", b"")
    put(sound / "test" / "cat" / "big.png", b"")
    scene(1, 800, 600).save(sound / "test" / "cat" / "big.png")
    found = statistics(Data(uri=str(sound)), 0)
    assert found.counts == {"train": {"cat": 12, "dog": 8}, "test": {"cat": 5, "dog": 4}}
    assert found.unreadable == {"train": 1, "test": 0}
    lines = [line.split() for line in found.as_text().splitlines()]
    assert ["cat", "12", "5"] in lines
    assert ["dog", "8", "4"] in lines
    assert ["pictures", "20", "9"] in lines
    assert any(line[:3] == ["unreadable", "1", "0"] for line in lines)
    assert found.quantiles["width"][0] == 160
    assert found.quantiles["width"][-1] == 800
    assert found.quantiles["megapixels"][-1] == pytest.approx(0.48)
    assert found.extensions == {".jpg": 28, ".png": 1}
    assert found.imbalance == 1.5
    weights = found.class_weights
    assert weights["dog"] / weights["cat"] == pytest.approx(1.5)
    assert (12 * weights["cat"] + 8 * weights["dog"]) / 20 == pytest.approx(1)
    stored = json.loads(found.as_json())
    assert stored["num_images"] == {"train": 20, "test": 9}


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(5):
            put(tmp_path / name / f"{i}.jpg", b"no picture")
    with pytest.raises(BadImage, match="none of the pictures"):
        statistics(Data(uri=str(tmp_path)), 0)


@pytest.mark.parametrize(("short", "size"), [(28, 28), (32, 32), (64, 32), (300, 192), (375, 256)])
def test_the_train_size_leaves_room_for_the_fix(short: int, size: int) -> None:
    assert useful_train_size(short) == size
