"""What a data set is made of: its files, its pictures, and how one is turned into the other."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fixres.errors import UserError, require_extra
from fixres.io.archives import Member, members

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and how much there is (None: not known).

Pictures while writing; bytes while checking and fetching."""

PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")


@dataclass(frozen=True)
class SourceFile:
    """A file that a data set is distributed as."""

    names: tuple[str, ...]
    """What it may be called; the first is its published name. A folder of that name counts as unpacked."""
    md5: str = ""
    """Published checksum of the first name; empty where none was."""
    url: str = ""
    """Where it is had without an account; empty where there is no such place."""
    megabytes: int = 0
    is_picture_archive: bool = True
    """Whether what it holds is written out, so that the disk must have room for it."""


@dataclass(frozen=True)
class Options:
    """What the user may choose. All but `allow_partial` change what is written."""

    allow_partial: bool = False
    """Accept missing pictures and files that are not the published ones, and say so."""
    split_inside: bool | None = None
    """mini-ImageNet: divide inside the classes. By default only where its tables share no classes."""
    seed: int = 0
    """Of that division."""
    keep_background: bool = False
    """Caltech: keep the class of clutter."""


@dataclass(frozen=True)
class Picture:
    """A picture to write: its place in the folder collection, and its bytes."""

    split: str
    """Empty for a set without splits of its own."""
    label: str
    name: str
    size: int
    read: Callable[[], bytes]


@dataclass
class Job:
    """One preparation, as a reader sees it."""

    info: DataSet
    found: Mapping[str, Path]
    options: Options
    notes: list[str] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    """What the reader wants to be remembered in fixres-data.json."""
    tables: dict[str, str] = field(default_factory=dict)
    """Small text files to be written beside the pictures."""

    def missing(self, names: list[str], where: str) -> None:
        """Note, or refuse, that listed pictures are not there.

        Raises:
            UserError: there are some, and the set need not be partial.
        """
        if not names:
            return
        text = f"{len(names)} listed picture{'s are' if len(names) > 1 else ' is'} not in {where}: {names[0]}"
        text += ", ..." if len(names) > 1 else ""
        if not self.options.allow_partial:
            raise UserError(f"{text}\n  fetch it again, or write what there is with --allow-partial")
        self.notes.append(text)


@dataclass(frozen=True)
class DataSet:
    """A data set by name: where it comes from, what it holds, how it is read."""

    name: str
    title: str
    read: Callable[[Job], Iterator[Picture]]
    files: Mapping[str, SourceFile]
    """By a key that the reader knows."""
    layouts: tuple[tuple[str, ...], ...]
    """Keys that make a whole set, the best first."""
    counts: Mapping[str, int]
    """Published number of pictures per split; the split '' where the set has none."""
    num_classes: int
    license: str
    """As its authors state it; says so where they state none."""
    page: str
    aliases: tuple[str, ...] = ()
    partial_layouts: tuple[tuple[str, ...], ...] = ()
    """Keys that make a part of it, accepted with `--allow-partial`."""
    background: tuple[str, int] = ("", 0)
    """The class of clutter that is dropped by default, and its pictures."""
    how_to_get: str = ""
    """What to do where it cannot be fetched."""

    @property
    def can_download(self) -> bool:
        """Whether `download` can fetch it."""
        return any(file.url for file in self.files.values())

    def expected(self, options: Options) -> dict[str, int]:
        """Return the published number of pictures per split, the background included where it is kept."""
        extra = self.background[1] if options.keep_background else 0
        return {split: count + extra for split, count in self.counts.items()}

    def expected_classes(self, options: Options) -> int:
        """Return the published number of classes, the background included where it is kept."""
        return self.num_classes + bool(self.background[0] and options.keep_background)


def from_member(split: str, label: str, member: Member) -> Picture:
    """Return the picture a member of an archive is, byte for byte."""
    return Picture(split, folder_name(label), member.name.rsplit("/", 1)[-1], member.size, member.read)


def folder_name(label: str) -> str:
    """Return a class name as a folder may be called: 'Ram C/V' becomes 'Ram C-V'."""
    return label.strip().replace("/", "-").replace("\\", "-")


def below(name: str, *roots: str) -> str:
    """Return `name` without the top folder, when that is one of `roots`: unpacked folders have lost it."""
    top, _, rest = name.partition("/")
    return rest if rest and top in roots else name


def is_picture(name: str) -> bool:
    """Return whether a file name is a picture's."""
    return name.lower().endswith(PICTURES)


def pick(job: Job, key: str, wanted: dict[str, tuple[str, str]], root: str) -> Iterator[Picture]:
    """Yield the pictures of archive `key` that `wanted` lists: path below `root` -> split and label.

    Raises:
        UserError: one of them is missing.
    """
    rest = dict(wanted)
    for member in members(job.found[key]):
        place = rest.pop(below(member.name, root), None)
        if place is not None:
            yield from_member(*place, member)
    job.missing(sorted(rest), str(job.found[key]))


def read_ready(job: Job, example: str, pattern: str) -> Iterator[Picture]:
    """Yield the pictures of folders of classes that are already divided, `ready_train` and `ready_test`.

    Class folders are called as `pattern` says, `example` is one of them: by that alone the set is recognised.

    Raises:
        UserError: one has another name.
    """
    for key, split in (("ready_train", "train"), ("ready_test", "test")):
        for member in members(job.found[key]):
            label, _, name = member.name.partition("/")
            if not name or "/" in name or not is_picture(name):
                continue
            if not re.fullmatch(pattern, label):
                own = f"your own pictures need no preparing: --data.uri {job.found[key].parent}"
                raise UserError(
                    f"{job.found[key]} is not {job.info.title}: it has the class folder '{label}', where the set has "
                    f"such as '{example}'\n  {own}"
                )
            yield from_member(split, label, member)


def read_pairs(
    text: str, name: object, expected: str = "a number and a value", separator: str | None = None
) -> dict[str, str]:
    """Return the lines of a text as first word -> rest; words end at blanks, or at `separator`.

    Raises:
        UserError: a line has one word only.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(separator, maxsplit=1)
        if len(words) == 2 and words[1].split(separator)[0]:
            found[words[0]] = words[1].rstrip() if separator else words[1].strip()
        elif words:
            raise UserError(f"{name}, line {number}: {expected} are expected, found {line[:60]!r}")
    return found


def read_mat(source: Path | bytes, name: str = "") -> dict[str, Any]:
    """Return the variables of one of MATLAB's .mat files, without dimensions of 1. Nothing in such a file can run.

    Raises:
        UserError: scipy is not installed, or it is no .mat file.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise require_extra("scipy", "sets") from None
    name = name or ("a table" if isinstance(source, bytes) else str(source))
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        variables: dict[str, Any] = loadmat(io.BytesIO(content), squeeze_me=True)
    except Exception as error:  # scipy raises whatever a damaged file leads it to
        raise UserError(
            f"cannot read {name}: it is no .mat file, or damaged ({type(error).__name__})\n  fetch it again"
        ) from error
    return _Variables(variables, name)


class _Variables(dict[str, Any]):
    def __init__(self, variables: dict[str, Any], name: str) -> None:
        super().__init__(variables)
        self.name = name

    def __missing__(self, key: str) -> Any:
        raise UserError(f"{self.name} holds no '{key}'\n  it is not the file of this data set")
