"""Smaller sets of photographs: Caltech's folders of classes, and archives that come with lists.

The latter are CUB, Stanford Cars, Oxford flowers and pets, Food-101 and FGVC-Aircraft.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fixres.data.prepare.parts import Job, Picture, from_member, is_picture, pick, read_mat, read_pairs, read_ready
from fixres.errors import UserError, counted
from fixres.io.archives import Member, members, read_members, read_texts

_INNER = "101_ObjectCategories.tar.gz"
_TRAIN, _TEST, _META = "cars_train_annos.mat", "cars_test_annos_withlabels.mat", "cars_meta.mat"


def read_caltech(job: Job) -> Iterator[Picture]:
    """Yield the pictures by class; the class of clutter is dropped unless it is to be kept."""
    background, _ = job.info.background
    dropped = 0
    for member in _members(job.found["archive"]):
        *above, label, name = ["", "", *member.name.split("/")]
        root = [part for part in above if part]
        # Some class folders hold a folder of leftovers; the published counts are without it.
        is_direct = not root or root[-1].endswith("_ObjectCategories")
        if not (label and is_direct and is_picture(name)) or label == "101_ObjectCategories":
            continue
        if label == background and not job.options.keep_background:
            dropped += 1
            continue
        yield from_member("", label, member)
    if dropped:
        job.notes.append(f"{counted(dropped, 'picture')} of {background} left out; --keep-background keeps them")
    job.notes.append("the set has no splits of its own; it is divided, stratified by class, when it is used")


def _members(path: Path) -> Iterator[Member]:
    """Yield the files, also through an archive inside the archive."""
    for member in members(path):
        if member.name.rsplit("/", 1)[-1] == _INNER:
            yield from member.members()
        else:
            yield member


def read_cub(job: Job) -> Iterator[Picture]:
    """Yield CUB-200-2011 as its train_test_split.txt divides it, or as train/ and test/ folders already do."""
    if "archive" not in job.found:
        yield from read_ready(job, "001.Black_footed_Albatross", r"[0-9]{3}\..+")
        return
    texts = read_texts(job.found["archive"], ["images.txt", "train_test_split.txt", "classes.txt"])
    paths = read_pairs(texts["images.txt"], "images.txt")
    is_train = read_pairs(texts["train_test_split.txt"], "train_test_split.txt")
    classes = set(read_pairs(texts["classes.txt"], "classes.txt").values())
    if set(paths) != set(is_train):
        raise UserError("images.txt and train_test_split.txt of CUB-200-2011 list different pictures\n  fetch it again")
    wanted = {}
    for number, path in paths.items():
        label = path.split("/")[0]
        if label not in classes:
            raise UserError(f"images.txt of CUB-200-2011 names the class {label}, which classes.txt does not have")
        wanted[f"images/{path}"] = ("train" if is_train[number] == "1" else "test", label)
    yield from pick(job, "archive", wanted, "CUB_200_2011")


def read_cars(job: Job) -> Iterator[Picture]:
    """Yield train and test of Stanford Cars; classes are make, model and year."""
    if "annos" in job.found:
        yield from _one_archive(job)
    elif "devkit" in job.found:
        yield from _two_archives(job)
    else:
        yield from read_ready(job, "AM General Hummer SUV 2000", r".+ (19|20)[0-9]{2}")


def _one_archive(job: Job) -> Iterator[Picture]:
    annos = job.found["annos"]
    table = read_mat(annos)
    names = [str(name) for name in table["class_names"]]
    wanted = {}
    for row in table["annotations"]:
        split = "test" if int(_field(row, "test", annos)) else "train"
        path = str(_field(row, "relative_im_path", annos))
        wanted[path.rsplit("/", 1)[-1]] = (split, _class_name(row, names, annos))
    yield from pick(job, "images", wanted, "car_ims")


def _two_archives(job: Job) -> Iterator[Picture]:
    devkit = job.found["devkit"]
    tables = read_members(devkit, [_TRAIN, _META], "fetch it again")
    if "labels" in job.found:
        tables[_TEST] = job.found["labels"].read_bytes()
    else:
        hint = "put it beside the archives: the devkit itself has no labels of the test pictures"
        tables |= read_members(devkit, [_TEST], hint)
    names = [str(name) for name in read_mat(tables[_META], _META)["class_names"]]
    for split, file in (("train", _TRAIN), ("test", _TEST)):
        rows = read_mat(tables[file], file)["annotations"]
        wanted = {str(_field(row, "fname", file)): (split, _class_name(row, names, file)) for row in rows}
        yield from pick(job, split, wanted, f"cars_{split}")


def _field(row: Any, name: str, path: Path | str) -> Any:
    try:
        return row[name]
    except (ValueError, IndexError, TypeError, KeyError):
        raise UserError(f"{path} has no field '{name}' for every picture\n  it is not the table of this set") from None


def _class_name(row: Any, names: list[str], path: Path | str) -> str:
    number = int(_field(row, "class", path))
    if not 1 <= number <= len(names):
        raise UserError(f"{path} names class {number}; there are {len(names)}")
    return names[number - 1]


def read_flowers(job: Job) -> Iterator[Picture]:
    """Yield Oxford 102 Flowers with its own train, val and test; classes are its numbers, 001 to 102."""
    labels = [int(label) for label in read_mat(job.found["labels"])["labels"]]
    splits = read_mat(job.found["splits"])
    wanted = {}
    for key, split in (("trnid", "train"), ("valid", "val"), ("tstid", "test")):
        for number in map(int, splits[key]):
            if not 1 <= number <= len(labels):
                raise UserError(f"{job.found['splits']} lists picture {number}; there are labels for {len(labels)}")
            wanted[f"image_{number:05}.jpg"] = (split, f"{labels[number - 1]:03}")
    yield from pick(job, "archive", wanted, "jpg")


def read_pets(job: Job) -> Iterator[Picture]:
    """Yield the 37 breeds of Oxford-IIIT Pets; its trainval is train."""
    texts = read_texts(job.found["annotations"], ["trainval.txt", "test.txt"])
    wanted = {}
    for file, split in (("trainval.txt", "train"), ("test.txt", "test")):
        for line in texts[file].splitlines():
            name = line.split()[0] if line.split() else ""
            if not name or name.startswith("#"):
                continue
            # Capitalised, so that the order by name is the order of the published numbers.
            label = " ".join(word.title() for word in name.rpartition("_")[0].split("_"))
            wanted[f"{name}.jpg"] = (split, label)
    yield from pick(job, "archive", wanted, "images")


def read_food(job: Job) -> Iterator[Picture]:
    """Yield Food-101."""
    texts = read_texts(job.found["archive"], ["meta/train.txt", "meta/test.txt"])
    wanted = {}
    for split in ("train", "test"):
        for line in texts[f"meta/{split}.txt"].split():
            wanted[f"images/{line}.jpg"] = (split, line.split("/")[0])
    yield from pick(job, "archive", wanted, "food-101")


def read_aircraft(job: Job) -> Iterator[Picture]:
    """Yield FGVC-Aircraft by variant, with its own train, val and test."""
    names = {split: f"images_variant_{split}.txt" for split in ("train", "val", "test")}
    texts = read_texts(job.found["archive"], list(names.values()))
    wanted = {}
    for split, name in names.items():
        for number, label in read_pairs(texts[name], name).items():
            wanted[f"data/images/{number}.jpg"] = (split, label)
    job.notes.append("the lowest 20 pixel rows of every picture hold a copyright line and are kept, as published")
    yield from pick(job, "archive", wanted, "fgvc-aircraft-2013b")
