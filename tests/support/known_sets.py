"""Published data sets in miniature, and what they are made into."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fixres.data.prepare.known_sets import SETS
from fixres.data.prepare.parts import Options
from fixres.data.prepare.writer import Report, prepare
from tests.support import archive_makers as made
from tests.support import nature_archives as nature

Files = dict[str, bytes]

CASES: dict[str, tuple[Callable[[], Files], dict[str, int], int]] = {
    "imagenet": (made.imagenet, {"train": 12, "val": 6}, 3),
    "tiny-imagenet-200": (made.tiny_imagenet, {"train": 9, "val": 4}, 3),
    "mini-imagenet": (made.mini_imagenet, {"train": 48, "val": 12, "test": 15}, 3),
    "cub-200-2011": (made.cub, {"train": 3, "test": 3}, 2),
    "stanford-cars": (made.cars_one_archive, {"train": 3, "test": 2}, 2),
    "caltech101": (made.caltech101, {"": 10}, 2),
    "caltech256": (made.caltech256, {"": 10}, 2),
    "cifar10": (made.cifar10, {"train": 20, "test": 4}, 4),
    "cifar100": (made.cifar100, {"train": 4, "test": 4}, 2),
    "mnist": (made.mnist, {"train": 10, "test": 2}, 10),
    "fashion-mnist": (made.mnist, {"train": 10, "test": 2}, 10),
    "flowers102": (made.flowers, {"train": 2, "val": 2, "test": 2}, 2),
    "oxford-pets": (made.pets, {"train": 2, "test": 2}, 2),
    "fgvc-aircraft": (made.aircraft, {"train": 2, "val": 2, "test": 2}, 2),
    "food101": (made.food, {"train": 4, "test": 2}, 2),
    "nabirds": (nature.nabirds, {"train": 3, "test": 3}, 2),
    "birdsnap": (nature.birdsnap, {"train": 4, "test": 2}, 2),
    "inat2017": (nature.inat2017, {"train": 4, "val": 2}, 2),
    "inat2019": (nature.inat2019, {"train": 4, "val": 2}, 2),
}
"""The files of every set, how many pictures they hold, and how many classes."""


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, by path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def by_path(folder: Path) -> dict[str, bytes]:
    """Return the same without the files of the folder itself."""
    return {path: content for path, content in tree(folder).items() if "/" in path}


def prepared(name: str, files: Files, tmp_path: Path, **options: Any) -> Report:
    """Write the files to `from` and make the set of them in `out`."""
    made.write_all(tmp_path / "from", files)
    return prepare(name, tmp_path / "from", tmp_path / "out", options=Options(**options))


def shrink_cub(files: Files) -> None:
    """Let the table take CUB's archive in `files` for the published one, until somebody puts its entry back."""
    info = SETS["cub-200-2011"]
    archive = dataclasses.replace(info.files["archive"], md5=made.md5(files["CUB_200_2011.tgz"]))
    small = {"files": {**info.files, "archive": archive}, "counts": {"train": 3, "test": 3}, "num_classes": 2}
    SETS["cub-200-2011"] = dataclasses.replace(info, **small)
