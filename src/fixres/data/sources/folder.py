"""`folder:DIR` - train/, val/ and test/ folders of classes, or one folder of classes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fixres.config.recipe import Data
from fixres.data.decode import BadImage, read_file
from fixres.data.picture_formats import EXTENSIONS, how_to_convert, unread_format
from fixres.data.picture_walk import NO_PICTURE, PassedOver, pictures_below
from fixres.data.sources.split_folders import folders_in, one_level_down, recognise, splits_in_classes
from fixres.data.sources.table_folders import advice_without_table, stores_taken_for_classes
from fixres.data.sources.uri import Scheme
from fixres.data.splits import Encoded, Names, Split
from fixres.errors import UserError, counted, did_you_mean
from fixres.io.file_states import file_states

_LOOSE = "outside the class folders"


@dataclass(frozen=True)
class Files(Encoded):
    """Pictures as files below one folder."""

    root: Path

    def read_bytes(self, path: str) -> bytes:
        """Return the file at `path` as it is; raises BadImage."""
        try:
            return read_file(self.root / path, path)
        except OSError as error:
            raise BadImage(path, f"cannot be read ({error.strerror})") from None

    def files(self, paths: Names) -> tuple[Path, Names]:
        """Return the folder and the pictures' own paths."""
        return self.root, paths

    def stamp(self, paths: Names) -> str:
        """Return a digest of the folder and of every file's size and time of change."""
        digest = hashlib.sha256(os.fsencode(self.root.resolve()))
        digest.update(file_states(self.root, paths).tobytes())
        return digest.hexdigest()


class Ignored(NamedTuple):
    """A file that was found and not used: its split, its path below the folder, and why."""

    split: str
    path: str
    reason: str


@dataclass
class Found:
    """What lies in a folder: its splits, notes, what it would be refused for, and what was passed over."""

    uri: str
    splits: dict[str, Split] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faults: list[UserError] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)


@dataclass
class _Scan:
    """Pictures of every class below one folder, and what was passed over: in the class folders, and beside them."""

    classes: dict[str, list[str]] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)
    """Paths, and why."""


def open_folder(data: Data, body: str) -> tuple[str, dict[str, Split], list[str]]:
    """Return the absolute URI, the splits found (or `{"all": ...}` when there are none) and notes.

    Every split has its own class list; hidden files and folders are passed over.

    Raises:
        UserError: no such folder, no pictures, an empty class, pictures outside class folders.
    """
    found = inspect_folder(data, body)
    if found.faults:
        raise found.faults[0]
    return found.uri, found.splits, [*found.notes, *in_words(found.ignored)]


def inspect_folder(data: Data, body: str) -> Found:
    """Return everything in the folder, with what `open_folder` would refuse it for as faults.

    A second folder for the same split keeps its own name.

    Raises:
        UserError: no such folder, or no class folder with pictures in it.
    """
    root = Path(body).expanduser().absolute()
    _check_folder(root, body)
    recognised = recognise(root)
    found = Found(f"folder:{root}", notes=recognised.notes, faults=recognised.faults)
    if recognised.folders:
        others = sorted(folders_in(root) - set(recognised.folders.values()))
        if others:
            found.notes.append(f"not a split, ignored: {', '.join(others)} in {body}")
    for name, folder in (recognised.folders or {"all": "."}).items():
        scan = _scan(root, folder)
        try:
            _check_scan(scan, name, root / folder)
        except UserError as error:
            found.faults.append(error)
        if name == "all":
            if stores := stores_taken_for_classes(
                root, {cls: paths[0] for cls, paths in scan.classes.items() if paths}
            ):
                # What names and folders say of splits comes first, what to type is the same.
                told = str(stores) if not found.faults else f"{found.faults[0]}\n{str(stores).partition(chr(10))[2]}"
                found.faults[:1] = [UserError(told)]
            ends = {cls: (paths[0], paths[-1]) for cls, paths in scan.classes.items() if paths}
            inside = splits_in_classes(ends, root)
            found.faults += inside.faults
            found.notes += inside.notes
        found.ignored += [Ignored(name, path, reason) for path, reason in sorted(scan.ignored)]
        found.ignored += [Ignored(name, path, _LOOSE) for path in sorted(scan.loose)]
        if any(scan.classes.values()):
            found.splits[name] = _split(name, scan, root, data)
    if not found.splits:
        raise found.faults[0]
    return found


def in_words(ignored: Sequence[Ignored]) -> list[str]:
    """Return a line for every split and reason, with the first files."""
    passed_over = PassedOver()
    for split, path, reason in ignored:
        passed_over.add(path, reason, split)
    return passed_over.in_words()


def _check_folder(root: Path, given: str) -> None:
    if root.is_dir():
        return
    if root.exists():
        raise UserError(f"{given} is a file; allowed is a folder with one sub-folder per class\n  unpack it first")
    parent = next(folder for folder in root.parents if folder.is_dir())
    missing = root.relative_to(parent).parts[0]
    present = sorted(folders_in(parent))
    shown = ", ".join(present[:10]) + (" ..." if len(present) > 10 else "")
    raise UserError(
        f"there is no folder {given}{did_you_mean(missing, present)}\n"
        f"  {parent} holds {f'the folders {shown}' if present else 'no folders'}"
    )


def _scan(root: Path, folder: str) -> _Scan:
    """Look through a folder of classes: what lies beside the class folders is told apart from what lies in them."""
    scan = _Scan()
    top = root if folder == "." else root / folder
    prefix = "" if folder == "." else f"{folder}/"
    for name in sorted(folders_in(top)):
        found = scan.classes.setdefault(name, [])
        for path, reason in pictures_below(top / name):
            if reason:
                scan.ignored.append((f"{prefix}{name}/{path}", reason))
            else:
                found.append(f"{prefix}{name}/{path}")
        found.sort()
    for name, reason in pictures_below(top, is_deep=False):
        if not reason:
            scan.loose.append(prefix + name)
        elif reason != NO_PICTURE:
            scan.ignored.append((prefix + name, reason))
    return scan


def _check_scan(scan: _Scan, split: str, folder: Path) -> None:
    if not any(scan.classes.values()):
        if scan.loose:
            raise UserError(
                f"{counted(len(scan.loose), 'picture')} in the folder {folder} itself, and none in a class folder\n"
                "  put the pictures of each class into a sub-folder named after the class\n"
                f"  {advice_without_table(folder)}"
            )
        raise UserError(
            f"no pictures in {folder}{_unread_in(scan.ignored)}\n  allowed are sub-folders, one per class, with files "
            f"ending in {' '.join(sorted(EXTENSIONS))}"
        )
    empty = [name for name, paths in scan.classes.items() if not paths]
    if empty and split in ("train", "all"):
        inside = [(path, reason) for path, reason in scan.ignored if set(path.split("/")) & set(empty)]
        deeper = one_level_down(folder, [name for name in scan.classes if name not in empty])
        raise UserError(
            f"no pictures in the class folder{'s' if len(empty) > 1 else ''} {', '.join(empty)} of {folder}"
            f"{_unread_in(inside)}\n  {deeper or 'add pictures, or remove the folder'}"
        )


def _unread_in(ignored: Sequence[tuple[str, str]]) -> str:
    """Return what to say of files that are pictures for people but not for this program."""
    unread = [path for path, _ in ignored if unread_format(path)]
    if not unread:
        return ""
    return f", but {counted(len(unread), 'file')} in {unread_format(unread[0])}: {how_to_convert(unread[0])}"


def _split(name: str, scan: _Scan, root: Path, data: Data) -> Split:
    classes = tuple(cls for cls, paths in scan.classes.items() if paths)
    counts = [len(scan.classes[cls]) for cls in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    paths = Names(path for cls in classes for path in scan.classes[cls])
    return Split(name, classes, labels, paths, Files(root), data.exif, data.alpha)


SCHEME = Scheme(
    "folder",
    "folder:DIR or a bare path",
    "`train/`, `val/` and `test/` folders of classes, or one folder of classes",
    open_folder,
)
