"""Folders as competitions hand them out: the table is found, and folders of pictures are never classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.collections import absolute_uri, open_splits
from fixres.data.sources.table_folders import address_of_pictures, is_store
from tests.support.opening import opened, refusal

SUBMISSION = "sample_submission.csv"


def lay_out(root: Path, pictures: dict[str, Sequence[str]], tables: dict[str, str]) -> Path:
    """Write small pictures, folder -> names, and tables; in their text IDS is a row for each id with its class."""
    for folder, names in pictures.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for k, name in enumerate(names):
            Image.new("RGB", (4, 3), (k, 0, 0)).save(root / folder / name)
    for name, text in tables.items():
        (root / name).write_text(text)
    return root


def ids(first: str = "a", num: int = 20, ending: str = "") -> list[str]:
    return [f"{first}{k:02}{ending}" for k in range(num)]


def table(columns: str, names: Sequence[str], labels: Sequence[str] = ("cat", "dog")) -> str:
    return f"{columns}\n" + "".join(f"{name},{labels[k % len(labels)]}\n" for k, name in enumerate(names))


TRAIN, TEST = ids("a", ending=".jpg"), ids("b", 4, ".jpg")


@pytest.mark.parametrize(
    ("pictures", "tables", "uri"),
    [
        (
            {"train_images": TRAIN, "test_images": TEST},
            {"train.csv": table("image_id,label", TRAIN), SUBMISSION: table("image_id,label", TEST, ["4"])},
            "train.csv?root=ROOT/train_images&image=image_id",
        ),
        (
            {"train": TRAIN, "test": TEST},
            {"labels.csv": table("id,breed", ids()), SUBMISSION: "id,cat,dog\nb00,0.5,0.5\n"},
            "labels.csv?root=ROOT/train&image=id&label=breed",
        ),
        ({"train/train": TRAIN, "test/test": TEST}, {"train.csv": table("id,has_it", TRAIN, "01")}, "has_it"),
        ({"images": [*TRAIN, *TEST]}, {"train.csv": table("filename,label", TRAIN)}, "root=ROOT/images&image=filename"),
        ({".": TRAIN}, {"train.csv": table("image,label", ids())}, "train.csv?image=image"),
        (
            {"HAM10000_images_part_1": TRAIN[:10], "HAM10000_images_part_2": TRAIN[10:]},
            {
                "HAM10000_metadata.csv": table("image_id,age,dx", [f"{name},30" for name in ids()]),
                "hmnist.csv": "pixel0,pixel1,label\n1,2,3\n",
            },
            "HAM10000_metadata.csv?image=image_id&label=dx",
        ),
        (
            {"train": TRAIN, "test": TRAIN[:4]},
            {"trainLabels.csv": table("name,level", ids(), "01")},
            "root=ROOT/train&",
        ),
        ({"train": TRAIN}, {"train.csv": table("Image,Id", TRAIN)}, "image=Image&label=Id"),
        (
            {"train": TRAIN, "test": TEST},
            {
                "train.csv": "index,path,label\n"
                + "".join(f"{k},train/{n},{'ab'[k % 2]}\n" for k, n in enumerate(TRAIN))
            },
            "ROOT/train.csv",
        ),
        (
            {"images": TRAIN},
            {"train.csv": "image_id,cat,dog\n" + "".join(f"{n},{k % 2},{1 - k % 2}\n" for k, n in enumerate(ids()))},
            "image=image_id&label=*",
        ),
        (
            {"train_images/cat": TRAIN[::2], "train_images/dog": TRAIN[1::2], "test_images": TEST},
            {"train.csv": table("image_id,label", TRAIN)},
            "root=ROOT/train_images&image=image_id",
        ),
    ],
)
def test_the_table_of_a_competition_is_found(
    tmp_path: Path, pictures: dict[str, Sequence[str]], tables: dict[str, str], uri: str
) -> None:
    lay_out(tmp_path, pictures, tables)
    collection = opened(tmp_path)
    assert uri.replace("ROOT", str(tmp_path)) in collection.uri
    assert collection.uri == absolute_uri(str(tmp_path)) == absolute_uri(f"folder:{tmp_path}")
    assert len(collection.classes) == 2
    assert {name: len(split) for name, split in collection.splits.items()} == {"train": 12, "val": 4, "test": 4}
    assert collection.notes[0].startswith(f"{tmp_path}: ")
    assert collection.uri in collection.notes[0]
    assert not any("train_images" in name for name in collection.classes)
    read = collection.split("train")
    assert read.read(0).size == (4, 3)
    # The same again, however it is named.
    assert opened(collection.uri).split("train").file_list_hash() == read.file_list_hash()


@pytest.mark.parametrize(
    ("pictures", "tables", "told"),
    [
        (
            {"train_images": TRAIN, "test_images": TEST},
            {},
            "ROOT holds pictures in test_images, train_images, no class folders, and no table of labels that fits\n"
            "  if a table has their labels: csv:FILE?root=DIR&image=COLUMN&label=COLUMN",
        ),
        (
            {"train_images": TRAIN, "test_images": TEST},
            {"meta.csv": "who,where,what\n1,2,3\n"},
            "name the columns of the table (who, where, what): csv:ROOT/meta.csv?root=ROOT/train_images&image=COLUMN",
        ),
        ({"train": TRAIN, "test": TEST}, {}, "look like splits and not like classes, but test holds no class folders"),
        ({"train": TRAIN, "test": TEST}, {}, "csv:FILE?root=DIR&image=COLUMN&label=COLUMN"),
        ({"images": TRAIN}, {}, "ROOT holds pictures in images, no class folders"),
        ({".": TRAIN}, {}, "20 pictures in the folder ROOT itself, and none in a class folder"),
        ({".": TRAIN}, {"t.csv": "a,b,c\n1,2,3\n"}, "csv:ROOT/t.csv?root=ROOT&image=COLUMN&label=COLUMN"),
        (
            {"train": TRAIN},
            {"train.csv": table("id,label", ids()), "folds.csv": table("id,fold", ids(), "01")},
            "ROOT has more than one table of labels that fits; name one:\n"
            "  csv:ROOT/folds.csv?root=ROOT/train&image=id&label=fold\n  csv:ROOT/train.csv?root=ROOT/train&image=id",
        ),
        (
            {"images": TRAIN, "images_small": TRAIN},
            {"labels.csv": table("id,label", ids())},
            "more than one folder of pictures that fits; name one:\n  csv:ROOT/labels.csv?root=ROOT/images&image=id\n",
        ),
        (
            {"train_images/cat": TRAIN[::2], "train_images/dog": TRAIN[1::2], "test_images": TEST},
            {},
            "rename them if they are classes\n  give ROOT/train_images",
        ),
    ],
)
def test_without_one_table_what_to_type_is_said(
    tmp_path: Path, pictures: dict[str, Sequence[str]], tables: dict[str, str], told: str
) -> None:
    assert told.replace("ROOT", str(tmp_path)) in refusal(lay_out(tmp_path, pictures, tables))


def test_the_folder_of_pictures_alone_points_to_the_table_beside_it(tmp_path: Path) -> None:
    lay_out(tmp_path, {"train": TRAIN}, {"labels.csv": table("id,breed", ids())})
    assert f"csv:{tmp_path}/labels.csv?root={tmp_path}/train&image=COLUMN" in refusal(tmp_path / "train")


@pytest.mark.parametrize(
    "pictures",
    [
        {"cat": TRAIN, "dog": TRAIN},
        {"train/cat": TRAIN, "train/dog": TRAIN, "test/cat": TEST, "test/dog": TEST},
        {"bus_train": TRAIN, "bus_val": TRAIN},
    ],
)
def test_class_folders_stay_classes_whatever_tables_lie_beside_them(
    tmp_path: Path, pictures: dict[str, Sequence[str]]
) -> None:
    lay_out(tmp_path, pictures, {"train.csv": table("id,photographer", ids())})
    uri, splits, _ = open_splits(Data(uri=str(tmp_path)))
    assert uri == f"folder:{tmp_path}"
    assert len(next(iter(splits.values())).classes) == 2


def test_names_of_stores() -> None:
    for name in ("train", "train_images", "testImages", "stage_2_images", "img", "train-jpg", "images_001"):
        assert is_store(name), name
    for name in ("bus_train", "cat", "contest", "masks", "2019", "HAM10000_images"):
        assert not is_store(name), name


@pytest.mark.parametrize(
    ("name", "text", "root"),
    [
        (SUBMISSION, table("id,label", ids(num=4), ["0"]), "test"),
        ("test.csv", "image_id\n" + "\n".join(ids(num=4)) + "\n", "test"),
        ("train.csv", table("id,label", ids()), "train"),
    ],
)
def test_a_form_to_fill_in_is_of_the_folder_test(tmp_path: Path, name: str, text: str, root: str) -> None:
    lay_out(tmp_path, {"train": TRAIN, "test": TRAIN[:4]}, {name: text})
    assert address_of_pictures(tmp_path / name)["root"] == str(tmp_path / root)
    assert address_of_pictures(tmp_path / name)["image"] in ("id", "image_id")
