"""ImageNet in every form it is found in, Tiny-ImageNet, and mini-ImageNet with its tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.data.prepare.parts import Options
from fixres.data.prepare.writer import prepare
from fixres.errors import UserError
from tests.support import archive_makers as made
from tests.support.known_sets import by_path, prepared, tree


@pytest.mark.parametrize("truth", ["devkit", "solution", "names", "apart", "folders"])
def test_imagenet_in_every_form(truth: str, shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.imagenet()
    shrink("imagenet", files, {"train": 12, "val": 6}, 3)
    expected = {
        f"train/{w}/{w}_{i}.JPEG": made.jpeg(10 * k + i) for k, w in enumerate(made.WNIDS) for i in range(4)
    } | {f"val/{w}/ILSVRC2012_val_{i:08}.JPEG": made.jpeg(100 + i) for i, w in enumerate(made.IMAGENET_VAL, 1)}
    names = [(f"ILSVRC2012_val_{i:08}", wnid) for i, wnid in enumerate(made.IMAGENET_VAL, 1)]
    if truth != "devkit":
        devkit = files.pop("ILSVRC2012_devkit_t12.tar.gz")
    if truth == "solution":
        rows = "".join(f"{name},{wnid} 85 1 499 272 {wnid} 1 2 3 4\n" for name, wnid in reversed(names))
        files["LOC_val_solution.csv"] = f"ImageId,PredictionString\n{rows}".encode()
    elif truth == "names":
        files["val_map.txt"] = "".join(f"{name}.JPEG {wnid}\n" for name, wnid in names).encode()
    elif truth == "apart":
        import io
        import tarfile

        with tarfile.open(fileobj=io.BytesIO(devkit)) as tar:
            for entry in tar.getmembers():
                if entry.isreg():
                    files[entry.name.rsplit("/", 1)[-1]] = (tar.extractfile(entry) or io.BytesIO()).read()
    elif truth == "folders":
        files = {
            (
                f"ILSVRC2012_img_{path}"
                if path.startswith("train")
                else f"ILSVRC2012_img_val/{path.rsplit('/', 1)[-1]}"
            ): content
            for path, content in expected.items()
        } | {"val_map.txt": "".join(f"{name}.JPEG {wnid}\n" for name, wnid in names).encode()}
    prepared("imagenet", files, tmp_path)
    assert by_path(tmp_path / "out") == expected


def test_validation_pictures_alone(shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.imagenet()
    shrink("imagenet", files, {"train": 12, "val": 6}, 3)
    train = files.pop("ILSVRC2012_img_train.tar")
    with pytest.raises(
        UserError, match=r"(?s)not all of the files needed.*looked for: ILSVRC2012_img_train.tar.*log in"
    ):
        prepared("imagenet", files, tmp_path)
    report = prepared("imagenet", files, tmp_path, allow_partial=True)
    assert report.counts == {"val": 6}
    assert any("without ILSVRC2012_img_train.tar" in note for note in report.notes)
    assert json.loads((tmp_path / "out/fixres-data.json").read_text())["complete"] is False
    with pytest.raises(UserError, match=r"is not whole: .*without ILSVRC2012_img_train"):
        prepared("imagenet", {"ILSVRC2012_img_train.tar": train}, tmp_path)


def test_tiny_imagenet_goes_by_its_annotations(shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.tiny_imagenet()
    shrink("tiny-imagenet-200", files, {"train": 9, "val": 4}, 3)
    report = prepared("tiny-imagenet-200", files, tmp_path)
    found = by_path(tmp_path / "out")
    assert [found[f"val/{made.WNIDS[c]}/val_{i}.JPEG"] for i, c in enumerate((0, 1, 2, 1))] == [
        made.jpeg(300 + i) for i in range(4)
    ]
    assert found["train/n01443537/n01443537_2.JPEG"] == made.jpeg(212)
    assert not any("test" in path or "boxes" in path for path in found)
    assert any("2 pictures of test/ have no labels" in note for note in report.notes)


def test_mini_imagenet_is_divided_inside_its_classes(shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.mini_imagenet()
    shrink("mini-imagenet", files, {"train": 48, "val": 12, "test": 15}, 3)
    with pytest.raises(UserError, match="share no classes"):
        prepared("mini-imagenet", files, tmp_path, split_inside=False)
    report = prepared("mini-imagenet", files, tmp_path, seed=4)
    assert any("inside every class" in note and "seed 4" in note for note in report.notes)
    found = by_path(tmp_path / "out")
    # Every picture is there once, byte for byte, 16, 4 and 5 of each class.
    originals = {path.removeprefix("images/"): c for path, c in files.items() if path.startswith("images/")}
    assert {path.rsplit("/", 1)[-1]: content for path, content in found.items()} == originals
    for wnid in made.WNIDS:
        counts = [sum(path.startswith(f"{split}/{wnid}/") for path in found) for split in ("train", "val", "test")]
        assert counts == [16, 4, 5]
    rows = (tmp_path / "out/splits.csv").read_text().splitlines()[1:]
    assert {f"{split}/{label}/{name}" for name, label, split in (row.split(",") for row in rows)} == set(found)
    prepare("mini-imagenet", tmp_path / "from", tmp_path / "same", options=Options(seed=4))
    assert tree(tmp_path / "same") == tree(tmp_path / "out")
    prepare("mini-imagenet", tmp_path / "from", tmp_path / "other", options=Options(seed=5))
    assert set(by_path(tmp_path / "other")) != set(found)
    with pytest.raises(UserError, match="give another folder"):
        prepare("mini-imagenet", tmp_path / "from", tmp_path / "out", options=Options(seed=5))


def test_mini_imagenet_with_shared_classes_stays_as_it_is(shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.mini_imagenet(is_disjoint=False, num=6)
    files["valid.csv"] = files.pop("val.csv")
    files["images/extra.jpg"] = made.jpeg(5)
    shrink("mini-imagenet", files, {"train": 6, "val": 6, "test": 6}, 3)
    report = prepared("mini-imagenet", files, tmp_path)
    assert "val/n01440764/n0144076400000001.jpg" in by_path(tmp_path / "out")
    assert not (tmp_path / "out/splits.csv").exists()
    assert any("1 picture that no table lists left out" in note for note in report.notes)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"name,label\na.jpg,x\n", "begin with the columns filename,label"),
        (b"filename,label\na.jpg\n", "line 2: a file name and a label"),
        (b"filename,label\nn0144076400000000.jpg,x\n", "already in train"),
        (b"filename,label\nnone.jpg,n01440764\n", r"1 listed picture is not in .*images: none.jpg"),
        (b"\xff\xfe", "is no text"),
    ],
)
def test_mini_imagenet_with_a_bad_table(
    table: bytes, message: str, shrink: Callable[..., None], tmp_path: Path
) -> None:
    files = made.mini_imagenet(num=6) | {"test.csv": table}
    shrink("mini-imagenet", files, {"train": 6, "val": 6, "test": 6}, 3)
    with pytest.raises(UserError, match=message):
        prepared("mini-imagenet", files, tmp_path)
    assert not (tmp_path / "out").exists()
