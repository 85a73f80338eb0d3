"""Collections packed into shards: nothing changes, and nothing is left behind that is not whole."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixres.data.decode import BadImage
from fixres.data.pack import Packing, pack
from fixres.errors import UserError
from tests.support.opening import opened
from tests.support.tar_shards import values


def test_packing_keeps_pictures_labels_and_order(photos: Path, tmp_path: Path) -> None:
    collection = opened(str(photos))
    progress: list[tuple[int, int]] = []
    shards = pack(
        collection, tmp_path / "out", Packing(images_per_shard=5), progress=lambda *done: progress.append(done)
    )
    assert [s.name for s in shards] == [
        *(f"train-{k:06}.tar" for k in range(5)),
        "holdout-000000.tar",
        "val-000000.tar",
        "val-000001.tar",
    ]
    assert progress[-1] == (34, 34)
    back = opened(f"wds:{tmp_path}/out")
    assert (back.classes, back.select, back.report) == (("blue", "red"), "holdout", "val")
    assert back.notes == ()
    for name, split in collection.splits.items():
        packed = back.split(name)
        assert packed.labels.tolist() == split.labels.tolist()
        for k in range(len(split)):
            assert packed.source.read_bytes(packed.paths[k]) == (photos / split.paths[k]).read_bytes()  # type: ignore[attr-defined]
    first = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.tar")}
    pack(collection, tmp_path / "second", Packing(images_per_shard=5))
    assert {p.name: p.read_bytes() for p in (tmp_path / "second").glob("*.tar")} == first
    with pytest.raises(UserError, match="is there already"):
        pack(collection, tmp_path / "out")


@pytest.mark.parametrize("max_side", [None, 32])
def test_packing_refuses_or_leaves_out_what_cannot_be_read(photos: Path, tmp_path: Path, max_side: int | None) -> None:
    (photos / "train" / "red" / "01.jpg").write_bytes(b"no picture")
    cut = photos / "val" / "blue" / "02.jpg"
    cut.write_bytes(cut.read_bytes()[:400])
    collection = opened(str(photos), holdout=0)
    with pytest.raises(BadImage, match=r"(?s)01\.jpg: not a picture.*--on-bad-image skip"):
        pack(collection, tmp_path / "out", Packing(max_side=max_side))
    assert not (tmp_path / "out").exists()
    bad: list[str] = []
    pack(collection, tmp_path / "out", Packing(images_per_shard=5, max_side=max_side, on_bad_image="skip"), bad=bad)
    assert bad == ["train/red/01.jpg", "val/blue/02.jpg"]
    back = opened(f"wds:{tmp_path}/out", holdout=0)
    for name, split in collection.splits.items():
        kept = [k for k in range(len(split)) if split.paths[k] not in bad]
        assert back.split(name).labels.tolist() == split.labels[kept].tolist()
        assert len(values(back.split(name))) == len(kept)


def test_packing_smaller_touches_only_what_is_larger(tmp_path: Path, photos: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100), "red").save(photos / "val" / "red" / "00.jpg", exif=exif)
    collection = opened(str(photos))
    pack(collection, tmp_path / "out", Packing(max_side=64, quality=80))
    back = opened(f"wds:{tmp_path}/out")
    for name, split in collection.splits.items():
        for k in range(len(split)):
            before, after = split.read(k), back.split(name).read(k)
            if max(before.size) <= 64:
                assert np.array_equal(np.asarray(before), np.asarray(after))
            else:
                assert max(after.size) == 64
                assert abs(after.width / after.height - before.width / before.height) < 0.03
    turned = back.split("val")
    place = list(collection.split("val").paths).index("val/red/00.jpg")
    assert turned.read(place).size == (32, 64)


def test_packing_what_is_no_file_and_what_cannot_be_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = opened("synthetic:classes=3,images=12,size=16")
    shards = pack(collection, tmp_path / "out")
    back = opened(f"wds:{tmp_path}/out")
    for name, split in collection.splits.items():
        assert np.array_equal(np.asarray(split.read(2)), np.asarray(back.split(name).read(2)))
    assert len(shards) == 3

    calls = 0
    plain = tarfile.TarFile.addfile

    def fail(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 15:
            raise OSError(28, "No space left on device")
        plain(*args)

    monkeypatch.setattr(tarfile.TarFile, "addfile", fail)
    with pytest.raises(UserError, match="No space left"):
        pack(collection, tmp_path / "full", Packing(images_per_shard=5))
    assert not (tmp_path / "full").exists()
    monkeypatch.undo()
    pack(collection, tmp_path / "full", Packing(images_per_shard=5))
    assert not list(tmp_path.glob(".*.part"))
