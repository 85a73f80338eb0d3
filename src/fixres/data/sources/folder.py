"""`folder:DIR` - train/, val/ and test/ folders of classes, or one folder of classes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fixres.config.recipe import Data
from fixres.data.decode import BadImage, read_file
from fixres.data.sources.uri import Scheme
from fixres.data.splits import Encoded, Names, Split
from fixres.errors import UserError, counted, did_you_mean
from fixres.io.file_states import file_states

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"})

_UNREAD = {".heic": "HEIC", ".heif": "HEIF", ".avif": "AVIF"}
"""Formats of pictures that are not opened as such; passing them over in silence would lose a whole phone's worth."""
_CONVERT = "convert to JPEG first, for example with ImageMagick: magick mogrify -format jpg *{ending}"
_NO_PICTURE = "no picture by its name"
_LOOSE = "outside the class folders"
_NAMED = 3

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MISNAMED = frozenset({"training", "trainset", "testing", "tests", "testset", "dev", "eval", "evaluation", "valset"})


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
    ignored: list[str] = field(default_factory=list)


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
    found = Found(f"folder:{root}")
    names = _folders_in(root)
    try:
        folders = _split_folders(root)
    except UserError as error:
        found.faults.append(error)
        folders = {name: name for name in sorted(names) if name.lower() in _SPLITS and _folders_in(root / name)}
    if folders:
        others = sorted(names - set(folders.values()))
        if others:
            found.notes.append(f"not a split, ignored: {', '.join(others)} in {body}")
    else:
        misnamed = sorted(name for name in names if name.lower() in _MISNAMED)
        if any(_folders_in(root / name) for name in misnamed):
            found.faults.append(
                UserError(
                    f"{body} holds {', '.join(misnamed)}, which looks like a split and not like a class\n"
                    "  rename the folders to train, val and test"
                )
            )
    for name, folder in (folders or {"all": "."}).items():
        scan = _scan(root, folder)
        try:
            _check_scan(scan, name, root / folder)
        except UserError as error:
            found.faults.append(error)
        found.ignored += [Ignored(name, path, _why(path)) for path in sorted(scan.ignored)]
        found.ignored += [Ignored(name, path, _LOOSE) for path in sorted(scan.loose)]
        if any(scan.classes.values()):
            found.splits[name] = _split(name, scan, root, data)
    if not found.splits:
        raise found.faults[0]
    return found


def in_words(ignored: Sequence[Ignored]) -> list[str]:
    """Return a line for every split and reason, with the first files."""
    by_kind: dict[tuple[str, str], list[str]] = {}
    for split, path, reason in ignored:
        by_kind.setdefault((split, reason), []).append(path)
    lines = []
    for (split, reason), paths in by_kind.items():
        where = "" if split == "all" else f" of {split}"
        num = f"{counted(len(paths), 'file')}{where} ignored, {reason}"
        lines.append(f"{num}: {', '.join(paths[:_NAMED])}" + (", ..." if len(paths) > _NAMED else ""))
    return lines


def _check_folder(root: Path, given: str) -> None:
    if root.is_dir():
        return
    if root.exists():
        raise UserError(f"{given} is a file; allowed is a folder with one sub-folder per class\n  unpack it first")
    parent = next(folder for folder in root.parents if folder.is_dir())
    missing = root.relative_to(parent).parts[0]
    present = sorted(_folders_in(parent))
    shown = ", ".join(present[:10]) + (" ..." if len(present) > 10 else "")
    raise UserError(
        f"there is no folder {given}{did_you_mean(missing, present)}\n"
        f"  {parent} holds {f'the folders {shown}' if present else 'no folders'}"
    )


def _folders_in(folder: Path) -> set[str]:
    return {entry.name for entry in _entries(folder) if _is_folder(entry)}


def _entries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    """Yield what lies in a folder and is not hidden."""
    try:
        entries = os.scandir(folder)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror})") from None
    with entries as found:
        yield from (entry for entry in found if not entry.name.startswith("."))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one that can be followed."""
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself, or into a folder that may not be entered


def _split_folders(root: Path) -> dict[str, str]:
    """Return split name -> folder name. A folder called train that holds no folders is a class, not a split."""
    found: dict[str, str] = {}
    for folder in sorted(_folders_in(root)):
        split = _SPLITS.get(folder.lower())
        if split is None or not _folders_in(root / folder):
            continue
        if split in found:
            raise UserError(f"{root} holds both {found[split]} and {folder}; only one may be the split '{split}'")
        found[split] = folder
    order = ("train", "val", "test")
    return {name: found[name] for name in order if name in found}


def _scan(root: Path, folder: str) -> _Scan:
    scan = _Scan()
    top = root if folder == "." else root / folder
    prefix = "" if folder == "." else f"{folder}/"
    classes: list[str] = []
    for entry in _entries(top):
        if _is_folder(entry):
            classes.append(entry.name)
        elif _ending(entry.name) in EXTENSIONS:
            scan.loose.append(prefix + entry.name)
    for name in sorted(classes):
        found: list[str] = []
        _walk(os.fspath(top / name), f"{prefix}{name}/", found, scan.ignored, set())
        scan.classes[name] = sorted(found)
    return scan


def _walk(folder: str, prefix: str, found: list[str], ignored: list[str], seen: set[str]) -> None:
    # Links are followed, to each folder once: a link to a folder above would never end, a dozen folders that link to
    # each other have more ways through them than can be walked.
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for entry in sorted(_entries(folder), key=lambda one: (one.is_symlink(), one.name)):
        name = entry.name
        if _is_folder(entry):
            _walk(entry.path, f"{prefix}{name}/", found, ignored, seen)
        elif _ending(name) in EXTENSIONS and (entry.is_symlink() or entry.is_file()):
            # A link to nothing counts: its picture is missing, which reading it will say.
            found.append(prefix + name)
        else:
            ignored.append(prefix + name)


def _check_scan(scan: _Scan, split: str, folder: Path) -> None:
    if not any(scan.classes.values()):
        if scan.loose:
            raise UserError(
                f"{counted(len(scan.loose), 'picture')} in the folder {folder} itself, and none in a class folder\n"
                "  put the pictures of each class into a sub-folder named after the class"
            )
        raise UserError(
            f"no pictures in {folder}{_unread_in(scan.ignored)}\n  allowed are sub-folders, one per class, with files "
            f"ending in {' '.join(sorted(EXTENSIONS))}"
        )
    empty = [name for name, paths in scan.classes.items() if not paths]
    if empty and split in ("train", "all"):
        inside = [path for path in scan.ignored if set(path.split("/")) & set(empty)]
        raise UserError(
            f"no pictures in the class folder{'s' if len(empty) > 1 else ''} {', '.join(empty)} of {folder}"
            f"{_unread_in(inside)}\n  add pictures, or remove the folder"
        )


def _why(path: str) -> str:
    """Return why a file of a class folder is not used."""
    ending = _ending(path)
    return f"{_UNREAD[ending]}, {_CONVERT.format(ending=ending)}" if ending in _UNREAD else _NO_PICTURE


def _unread_in(paths: Sequence[str]) -> str:
    """Return what to say of files that are pictures for people but not for this program."""
    unread = [path for path in paths if _ending(path) in _UNREAD]
    if not unread:
        return ""
    ending = _ending(unread[0])
    return f", but {counted(len(unread), 'file')} in {_UNREAD[ending]}: {_CONVERT.format(ending=ending)}"


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 - a Path per file is slow


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
