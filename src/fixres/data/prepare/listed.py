"""Data sets whose archive comes with lists: CUB, Oxford flowers and pets, Food-101, FGVC-Aircraft."""

from __future__ import annotations

from collections.abc import Iterator

from fixres.data.prepare.matlab import read_mat
from fixres.data.prepare.parts import Job, Picture, pick, read_ready
from fixres.errors import UserError
from fixres.io.archives import read_texts


def read_cub(job: Job) -> Iterator[Picture]:
    """Yield CUB-200-2011 as its train_test_split.txt divides it, or as train/ and test/ folders already do."""
    if "archive" not in job.found:
        yield from read_ready(job, "001.Black_footed_Albatross", r"[0-9]{3}\..+")
        return
    texts = read_texts(job.found["archive"], ["images.txt", "train_test_split.txt", "classes.txt"])
    paths = _pairs(texts["images.txt"], "images.txt")
    is_train = _pairs(texts["train_test_split.txt"], "train_test_split.txt")
    classes = set(_pairs(texts["classes.txt"], "classes.txt").values())
    if set(paths) != set(is_train):
        raise UserError("images.txt and train_test_split.txt of CUB-200-2011 list different pictures\n  fetch it again")
    wanted = {}
    for number, path in paths.items():
        label = path.split("/")[0]
        if label not in classes:
            raise UserError(f"images.txt of CUB-200-2011 names the class {label}, which classes.txt does not have")
        wanted[f"images/{path}"] = ("train" if is_train[number] == "1" else "test", label)
    yield from pick(job, "archive", wanted, ("CUB_200_2011",))


def _pairs(text: str, name: str) -> dict[str, str]:
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(maxsplit=1)
        if len(words) == 2:
            found[words[0]] = words[1].strip()
        elif words:
            raise UserError(f"{name}, line {number}: a number and a value are expected, found {line[:60]!r}")
    return found


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
    yield from pick(job, "archive", wanted, ("jpg",))


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
    yield from pick(job, "archive", wanted, ("images",))


def read_food(job: Job) -> Iterator[Picture]:
    """Yield Food-101."""
    texts = read_texts(job.found["archive"], ["meta/train.txt", "meta/test.txt"])
    wanted = {}
    for split in ("train", "test"):
        for line in texts[f"meta/{split}.txt"].split():
            wanted[f"images/{line}.jpg"] = (split, line.split("/")[0])
    yield from pick(job, "archive", wanted, ("food-101",))


def read_aircraft(job: Job) -> Iterator[Picture]:
    """Yield FGVC-Aircraft by variant, with its own train, val and test."""
    names = {split: f"images_variant_{split}.txt" for split in ("train", "val", "test")}
    texts = read_texts(job.found["archive"], list(names.values()))
    wanted = {}
    for split, name in names.items():
        for number, label in _pairs(texts[name], name).items():
            wanted[f"data/images/{number}.jpg"] = (split, label)
    job.notes.append("the lowest 20 pixel rows of every picture hold a copyright line and are kept, as published")
    yield from pick(job, "archive", wanted, ("fgvc-aircraft-2013b",))
