"""`folder:DIR` - train/, val/ and test/ folders of classes, or one folder of classes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fixres.config import Data
from fixres.data.decode import Alpha, BadImage, Exif, decode
from fixres.data.splits import Names, Split
from fixres.errors import UserError, did_you_mean

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"})

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MISNAMED = frozenset({"training", "trainset", "testing", "tests", "testset", "dev", "eval", "evaluation", "valset"})


@dataclass(frozen=True)
class Files:
    """Pictures as files below one folder."""

    root: Path

    def read(self, path: str, exif: Exif, alpha: Alpha) -> Image.Image:
        """Return the RGB picture at `path`; raises BadImage."""
        return decode(self.read_bytes(path), path, exif, alpha)

    def read_bytes(self, path: str) -> bytes:
        """Return the file at `path` as it is; raises BadImage."""
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise BadImage(path, f"cannot be read ({error.strerror})") from None


@dataclass
class _Scan:
    """Pictures of every class below one folder, and what was passed over."""

    classes: dict[str, list[str]] = field(default_factory=dict)
    loose: int = 0
    ignored: list[str] = field(default_factory=list)


def open_folder(data: Data, body: str) -> tuple[str, dict[str, Split], list[str]]:
    """Return the absolute URI, the splits found (or `{"all": ...}` when there are none) and notes.

    Every split has its own class list; hidden files and folders are passed over.

    Raises:
        UserError: no such folder, no pictures, an empty class, pictures outside class folders.
    """
    root = Path(body).expanduser().absolute()
    _check_folder(root, body)
    notes: list[str] = []
    split_folders = _split_folders(root)
    if split_folders:
        others = sorted(_entry_names(root, folders=True) - set(split_folders.values()))
        if others:
            notes.append(f"not a split, ignored: {', '.join(others)} in {body}")
    else:
        misnamed = sorted(name for name in _entry_names(root, folders=True) if name.lower() in _MISNAMED)
        if misnamed and any(_entry_names(root / name, folders=True) for name in misnamed):
            raise UserError(
                f"{body} holds {', '.join(misnamed)}, which looks like a split and not like a class\n"
                "  rename the folders to train, val and test"
            )
    splits = {}
    for name, folder in (split_folders or {"all": "."}).items():
        scan = _scan(root, folder)
        _check_scan(scan, name, root / folder)
        notes += _scan_notes(scan, name)
        splits[name] = _split(name, scan, root, data)
    return f"folder:{root}", splits, notes


def inspect_folder(data: Data, body: str) -> tuple[str, dict[str, Split], list[str], list[str]]:
    """Return the URI, the splits, notes, and what `open_folder` would refuse the folder for.

    A second folder for the same split keeps its own name.

    Raises:
        UserError: no such folder, or no class folder with pictures in it.
    """
    root = Path(body).expanduser().absolute()
    _check_folder(root, body)
    faults: list[str] = []
    try:
        folders = _split_folders(root)
    except UserError as error:
        faults.append(str(error))
        names = sorted(_entry_names(root, folders=True))
        folders = {name: name for name in names if name.lower() in _SPLITS and _entry_names(root / name, folders=True)}
    notes: list[str] = []
    splits: dict[str, Split] = {}
    for name, folder in (folders or {"all": "."}).items():
        scan = _scan(root, folder)
        try:
            _check_scan(scan, name, root / folder)
        except UserError as error:
            faults.append(str(error).partition("\n")[0])
        notes += _scan_notes(scan, name)
        if any(scan.classes.values()):
            splits[name] = _split(name, scan, root, data)
    if not splits:
        raise UserError("\n".join(faults))
    return f"folder:{root}", splits, notes, faults


def _check_folder(root: Path, given: str) -> None:
    if root.is_dir():
        return
    if root.exists():
        raise UserError(f"{given} is a file; allowed is a folder with one sub-folder per class\n  unpack it first")
    parent = next(folder for folder in root.parents if folder.is_dir())
    missing = root.relative_to(parent).parts[0]
    present = sorted(_entry_names(parent, folders=True))
    shown = ", ".join(present[:10]) + (" ..." if len(present) > 10 else "")
    raise UserError(
        f"there is no folder {given}{did_you_mean(missing, present)}\n"
        f"  {parent} holds {f'the folders {shown}' if present else 'no folders'}"
    )


def _entry_names(folder: Path, *, folders: bool) -> set[str]:
    with _listing(folder) as entries:
        return {entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir() is folders}


def _listing(folder: Path | str) -> os._ScandirIterator[str]:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror})") from None


def _split_folders(root: Path) -> dict[str, str]:
    """Return split name -> folder name. A folder called train that holds no folders is a class, not a split."""
    found: dict[str, str] = {}
    for folder in sorted(_entry_names(root, folders=True)):
        split = _SPLITS.get(folder.lower())
        if split is None or not _entry_names(root / folder, folders=True):
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
    with _listing(top) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                classes.append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:  # noqa: PTH122 - a Path per file is slow
                scan.loose += 1
    for name in sorted(classes):
        found: list[str] = []
        _walk(os.fspath(top / name), f"{prefix}{name}/", found, scan.ignored, ())
        scan.classes[name] = sorted(found)
    return scan


def _walk(folder: str, prefix: str, found: list[str], ignored: list[str], above: tuple[str, ...]) -> None:
    # Links are followed; a link to a folder above would never end.
    real = os.path.realpath(folder)
    if real in above:
        return
    with _listing(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_dir():
                _walk(entry.path, f"{prefix}{name}/", found, ignored, (*above, real))
            elif os.path.splitext(name)[1].lower() in EXTENSIONS and (entry.is_file() or entry.is_symlink()):  # noqa: PTH122
                # A link to nothing counts: its picture is missing, which reading it will say.
                found.append(prefix + name)
            else:
                ignored.append(prefix + name)


def _check_scan(scan: _Scan, split: str, folder: Path) -> None:
    if not any(scan.classes.values()):
        if scan.loose:
            raise UserError(
                f"the {scan.loose} pictures of {folder} lie in the folder itself\n"
                "  put the pictures of each class into a sub-folder named after the class"
            )
        raise UserError(
            f"no pictures in {folder}\n  allowed are sub-folders, one per class, with files ending in "
            + " ".join(sorted(EXTENSIONS))
        )
    empty = [name for name, paths in scan.classes.items() if not paths]
    if empty and split in ("train", "all"):
        raise UserError(
            f"no pictures in the class folder{'s' if len(empty) > 1 else ''} {', '.join(empty)} of {folder}\n"
            "  add pictures, or remove the folder"
        )


def _scan_notes(scan: _Scan, split: str) -> list[str]:
    where = "" if split == "all" else f" of {split}"
    notes = []
    if scan.ignored:
        example = sorted(scan.ignored)[0]
        notes.append(f"{len(scan.ignored)} file(s) in the class folders{where} are no pictures, ignored: {example}")
    if scan.loose:
        notes.append(f"{scan.loose} picture(s){where} outside the class folders, ignored")
    return notes


def _split(name: str, scan: _Scan, root: Path, data: Data) -> Split:
    classes = tuple(cls for cls, paths in scan.classes.items() if paths)
    counts = [len(scan.classes[cls]) for cls in classes]
    return Split(
        name=name,
        classes=classes,
        labels=np.repeat(np.arange(len(classes), dtype=np.int64), counts),
        paths=Names(path for cls in classes for path in scan.classes[cls]),
        source=Files(root),
        exif=data.exif,
        alpha=data.alpha,
    )
