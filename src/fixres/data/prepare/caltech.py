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
    job.notes.append("the set has no splits of its own; they are carved, stratified, when it is used")


def _members(path: Path) -> Iterator[Member]:
    """Yield the files, also through an archive inside the archive."""
    for member in members(path):
        if member.name.rsplit("/", 1)[-1] == _INNER:
            with member.open() as file:
                yield from members_of(file, f"{member.name} in {path}")
        else:
            yield member
