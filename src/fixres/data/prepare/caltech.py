"""Caltech-101 and Caltech-256: folders of classes, without splits of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fixres.data.prepare.parts import Job, Picture, from_member, is_picture
from fixres.errors import counted
from fixres.io.archives import Member, members, members_of

_INNER = "101_ObjectCategories.tar.gz"


def read_caltech(job: Job) -> Iterator[Picture]:
    """Yield the pictures by class; the class of clutter is dropped unless it is to be kept."""
    background, _ = job.info.background
    dropped = 0
    for member in _pictures(job.found["archive"]):
        _, label, name = ("/" + member.name).rsplit("/", 2)
        label = label.rsplit("/", 1)[-1]
        if label == background and not job.options.keep_background:
            dropped += 1
            continue
        yield from_member("", label, member, name)
    if dropped:
        job.notes.append(f"{counted(dropped, 'picture')} of {background} left out; --keep-background keeps them")
    job.notes.append("the set has no splits of its own; they are carved, stratified, when it is used")


def _pictures(path: Path) -> Iterator[Member]:
    """Yield the pictures that lie directly in a folder of a class, also through an archive inside the archive."""
    for member in members(path):
        parts = member.name.split("/")
        if parts[-1] == _INNER:
            with member.open() as file:
                yield from _in_class_folders(members_of(file, f"{member.name} in {path}"))
        else:
            yield from _in_class_folders(iter([member]))


def _in_class_folders(found: Iterator[Member]) -> Iterator[Member]:
    for member in found:
        *above, label, name = ["", "", *member.name.split("/")]
        root = [part for part in above if part]
        # Some class folders hold a folder of leftovers; the published counts are without it.
        is_direct = not root or root[-1].endswith("_ObjectCategories")
        if label and is_direct and is_picture(name) and label != "101_ObjectCategories":
            yield member
