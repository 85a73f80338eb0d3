"""Lists none of whose pictures are there: what would find them, in one message in place of one per picture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from fixres.data.decode import path_on_disk
from fixres.data.picture_formats import EXTENSIONS
from fixres.errors import UserError, counted
from fixres.io.folder_walk import entries, is_folder, is_hidden

_SAMPLE = 20
_FOLDERS = 200
"""Folders that are looked into, of those beside the one that paths count from."""
_ENDINGS = tuple(sorted(EXTENSIONS, key=lambda one: (one not in (".jpg", ".png", ".jpeg"), one)))


class Listed(NamedTuple):
    """A picture of a list, and its label where the list has any."""

    path: str
    label: str = ""


class _Way(NamedTuple):
    """What was done to a name of a list so that there is such a file."""

    folder: str
    """That it counts from."""
    left_out: int
    """Folders of the name that are left out in front."""
    by_label: bool
    ending: str
    """Put behind the name, or in place of its own ending."""
    is_added: bool


def require_some(listed: Iterable[Listed], table: str, root: Path, other_root: str) -> None:
    """Refuse a list all of whose pictures are missing.

    Args:
        listed: its pictures; asked for until one of them is there.
        table: what to call the list.
        root: the folder that its paths count from.
        other_root: how another one is named, with DIR in its place.

    Raises:
        UserError: none of the pictures is there.
    """
    sample: list[Listed] = []
    num = 0
    for one in listed:
        if is_there(path_on_disk(root / one.path)):
            return
        num += 1
        if len(sample) < _SAMPLE:
            sample.append(one)
    if num:
        first = root / sample[0].path
        told = f"none of the {counted(num, 'picture')} that {table} lists is there: {first} is the first"
        raise UserError(f"{told}\n  {_advice(sample, root, other_root)}")


def is_there(path: str | Path) -> bool:
    """Return whether there is such a file, or something that keeps one from seeing it."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        pass
    return True


def _advice(sample: list[Listed], root: Path, other_root: str) -> str:
    for is_far in (False, True):
        for read, what in _readings(sample):
            for way in _ways(read[0], root, is_far):
                files = {one.path: _apply(way, one) for one in read}
                # Two names that become one file are not what the list means.
                if len(set(files.values())) == len(files) and all(map(is_there, files.values())):
                    found = f"{Path(_apply(way, read[0]))} is there: "
                    return found + "; ".join([*what, *_in_words(way, read[0], root, other_root)])
    return f"paths count from {root.absolute()}; from another folder DIR: {other_root}"


def _readings(sample: list[Listed]) -> Iterator[tuple[list[Listed], list[str]]]:
    """Yield the names as they are, and as other programs write them, with what has to be changed."""
    yield sample, []
    read = sample
    said: list[str] = []
    for what, change in (
        ("leave out file://", lambda name: name.removeprefix("file://")),
        ("write / in place of \\", lambda name: name.replace("\\", "/")),
        ("leave out the blanks around the names", str.strip),
        ("write the names without %20 and the like", unquote),
    ):
        changed = [one._replace(path=change(one.path)) for one in read]
        if changed != read:
            read, said = changed, [*said, what]
            yield read, said


def _ways(one: Listed, root: Path, is_far: bool) -> Iterator[_Way]:
    """Yield what makes a file that is there of a name; `is_far`: in other folders too, or with fewer above it."""
    # A name may begin with / and count from the folder all the same.
    for left_out in range(len(_parts(one.path)) if is_far else 1 + one.path.startswith("/")):
        for folder in _folders(root) if is_far else (os.fspath(root),):
            for by_label in (False, True) if one.label else (False,):
                way = _Way(folder, left_out, by_label, "", False)
                path = _apply(way, one)
                if is_there(path):
                    yield way
                elif os.path.isdir(os.path.dirname(path)):  # noqa: PTH112, PTH120 - asked of thousands
                    others = (way._replace(ending=e, is_added=added) for e in _both_cases() for added in (True, False))
                    yield from (other for other in others if is_there(_apply(other, one)))


def _apply(way: _Way, one: Listed) -> str:
    parts = _parts(one.path)[way.left_out :]
    path = os.path.join(way.folder, one.label if way.by_label else "", *parts)  # noqa: PTH118 - asked of thousands
    if not way.ending:
        return path
    return (path if way.is_added else path.removesuffix(PurePosixPath(path).suffix)) + way.ending


def _parts(path: str) -> list[str]:
    """Return the parts of a name; the first of an absolute one is its /."""
    return ["/"] * path.startswith("/") + [part for part in path.split("/") if part not in ("", ".")]


def _both_cases() -> Iterator[str]:
    for one in _ENDINGS:
        yield one
        yield one.upper()


def _folders(root: Path) -> Iterator[str]:
    yield os.fspath(root)
    yield os.getcwd()  # noqa: PTH109 - beside other texts
    if root.is_dir():
        inside = (entry.path for entry in entries(root) if not is_hidden(entry.name) and is_folder(entry))
        yield from sorted(islice(inside, _FOLDERS))
    yield os.fspath(root.parent)


def _in_words(way: _Way, one: Listed, root: Path, other_root: str) -> Iterator[str]:
    if way.left_out:
        first = "".join(f"{part}/" for part in _parts(one.path)[: way.left_out])
        yield f"leave out {first.replace('//', '/')} in front of the names"
    is_absolute = one.path.startswith("/") and not way.left_out
    if way.folder != os.fspath(root) and not is_absolute:
        yield other_root.replace("DIR", way.folder)
    if way.by_label:
        yield f"put the label in front of the names, {one.label}/"
    if way.ending:
        own = PurePosixPath(one.path).suffix
        yield f"add {way.ending} to the names" if way.is_added else f"they end in {way.ending}, not in {own}"
