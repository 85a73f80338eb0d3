"""Birds and other living things: NABirds, Birdsnap, and the iNaturalist competitions of 2017 and 2019."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fixres.data.prepare.parts import Job, Picture, below, pick, read_pairs
from fixres.errors import UserError
from fixres.io.archives import decode_text, read_members, read_texts

_NABIRDS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def read_nabirds(job: Job) -> Iterator[Picture]:
    """Yield NABirds as its train_test_split.txt divides it; a class is called by its number and its name."""
    texts = read_texts(job.found["archive"], _NABIRDS)
    paths, labels, is_train, names = (read_pairs(texts[name], name) for name in _NABIRDS)
    if not set(paths) == set(labels) == set(is_train):
        raise UserError("the tables of NABirds list different pictures\n  fetch it again")
    unknown = sorted(set(labels.values()) - set(names))
    if unknown:
        raise UserError(f"image_class_labels.txt of NABirds names class {unknown[0]:.40}, which classes.txt lacks")
    wanted = {}
    for number, path in paths.items():
        label = labels[number]
        wanted[f"images/{path}"] = ("train" if is_train[number] == "1" else "test", f"{label:0>4}.{names[label]}")
    yield from pick(job, "archive", wanted, "nabirds")


def read_birdsnap(job: Job) -> Iterator[Picture]:
    """Yield Birdsnap: the pictures of test_images.txt are its test, all others of images.txt its train."""
    paths = list(_column(job.found["table"], "path"))
    tests = set(_column(job.found["tests"], "path"))
    if strangers := sorted(tests.difference(paths)):
        raise UserError(f"{job.found['tests']} lists {strangers[0]:.80}, which {job.found['table']} does not")
    wanted = {path: ("test" if path in tests else "train", path.split("/")[0]) for path in paths}
    yield from pick(job, "pictures", wanted, "images")


def _column(path: Path, name: str) -> Iterator[str]:
    """Yield a column of a table whose lines are divided by tabs."""
    text = decode_text(path.read_bytes(), str(path))
    for row in csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE):
        if not row.get(name):
            raise UserError(f"{path} has no column '{name}', filled in every line\n  fetch it again")
        yield row[name]


def read_inat(job: Job) -> Iterator[Picture]:
    """Yield train and val of a competition of iNaturalist; a class is called by its number and its name."""
    root = job.info.files["images"].names[-1]
    wanted: dict[str, tuple[str, str]] = {}
    for split in ("train", "val"):
        path = job.found[split if split in job.found else "tables"]
        for place, label in _annotated(path, f"{split}{job.info.name[-4:]}.json"):
            wanted[below(place, root)] = (split, label)
    yield from pick(job, "images", wanted, root)


def _annotated(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield path and class of every picture of a table in the format of COCO, loose or in an archive."""
    is_loose = path.is_file() and path.suffix == ".json"
    content = path.read_bytes() if is_loose else read_members(path, [name])[name]
    try:
        table: dict[str, Any] = json.loads(content)
        classes = {row["id"]: f"{row['id']:04}.{row['name']}" for row in table["categories"]}
        places = {row["id"]: str(row["file_name"]) for row in table["images"]}
        rows = [(places[row["image_id"]], classes[row["category_id"]]) for row in table["annotations"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{name} in {path} is no table of images, categories and annotations ({type(error).__name__})\n"
            "  fetch it again"
        ) from None
    yield from rows
