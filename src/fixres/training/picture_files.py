"""The files a run reads its pictures from: kept when it begins, compared when it goes on.

RUN/picture_files.npz has their names, sizes and times of change, and their hashes where they were asked for.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fixres.data.splits import Names, OnDisk, Split
from fixres.errors import UserError, as_text, counted
from fixres.io.file_states import file_hashes, file_states
from fixres.io.files import write_with
from fixres.io.progress import NamedProgress
from fixres.training.start_checks import StartChecks

FILE_NAME = "picture_files.npz"
_COLUMNS = ("names", "lengths", "states", "hashes")


@dataclass(frozen=True, eq=False)
class FileList:
    """Files below one folder: sizes in bytes and times in nanoseconds, `[N, 2]`, and hashes `[N, 16]` if kept."""

    names: Names
    states: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Look:
    """What a look at the picture files found: the lists to keep from now on, by split, and what to tell."""

    files: Mapping[str, FileList] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_new: bool = False
    """Whether the lists are others than those that are kept."""


@dataclass
class _Changes:
    """How many files have other contents, or another time alone, and the first of each in words."""

    num_changed: int = 0
    num_touched: int = 0
    changed: str = ""
    touched: str = ""


def files_of(splits: Mapping[str, Split]) -> dict[str, tuple[Path, Names]]:
    """Return the folder and the files of every split that has any; files that serve several are the first one's."""
    found: dict[str, tuple[Path, Names]] = {}
    for name, split in splits.items():
        if isinstance(split.source, OnDisk):
            files = split.source.files(split.paths)
            if len(files[1]) and files not in found.values():
                found[name] = files
    return found


def look_at_files(
    splits: Mapping[str, Split], folder: Path, is_resumed: bool, checks: StartChecks, progress: NamedProgress
) -> Look:
    """Return the picture files as they are now, compared with those a run began with where it goes on.

    Raises:
        UserError: files changed and `accept_data` is not set, or there are no hashes for `check_data` to compare with.
    """
    places = files_of(splits)
    if not places:
        said = "--check-data: the pictures are no files of this machine, so there is nothing to compare"
        return Look(notes=(said,) if checks.check_data else ())
    kept = read_files(folder) if is_resumed else {}
    if is_resumed and checks.check_data and not all(name in kept and kept[name].hashes is not None for name in places):
        raise UserError(
            f"{folder} keeps no hashes of its picture files, since it was not started with --check-data\n"
            "  leave --check-data out: sizes and times are compared without it, as far as they are kept"
        )
    now = {name: FileList(names, file_states(root, names)) for name, (root, names) in places.items()}
    if checks.check_data:
        now = {name: _hashed(name, files, places[name][0], progress) for name, files in now.items()}
    if not kept:
        return Look(now, is_new=True)
    changes = _Changes()
    goes_on = {name: _compare(files, kept.get(name), places[name][0], changes) for name, files in now.items()}
    total = sum(len(files.names) for files in now.values())
    notes = []
    if changes.num_changed:
        what = f"{changes.num_changed:,} of {counted(total, 'picture file')} changed since the run began, for example "
        what += changes.changed
        if not checks.accept_data:
            raise UserError(
                f"{what}\n  bring back the pictures, start again in another folder with --out, or go on with those "
                "that are there now: add --accept-data"
            )
        notes.append(f"{what}; it goes on with those that are there now")
    if checks.check_data:
        same = total - changes.num_changed
        notes.append(f"{same:,} of {counted(total, 'picture file')} have the same contents as before")
    elif changes.num_touched:
        has_hashes = all(files.hashes is not None for files in kept.values())
        notes.append(
            f"{changes.num_touched:,} of {counted(total, 'picture file')} have another time of change than before and "
            f"the same size, for example {changes.touched}; contents were not compared"
            + (" (--check-data does so)" if has_hashes else "")
        )
    return Look(goes_on, tuple(notes), bool(changes.num_changed or changes.num_touched))


def _hashed(name: str, files: FileList, root: Path, progress: NamedProgress) -> FileList:
    def report(done: int, total: int) -> None:
        progress(f"hashing the files of {name}", done, total)

    return FileList(files.names, files.states, file_hashes(root, files.names, report))


def _compare(now: FileList, then: FileList | None, root: Path, changes: _Changes) -> FileList:
    """Add what differs to `changes`, and return what is kept from now on: hashes stay those of files that stayed."""
    if then is None or then.names != now.names:
        then = FileList(now.names, np.full_like(now.states, -1))
    is_changed = then.states[:, 0] != now.states[:, 0]
    if then.hashes is not None and now.hashes is not None:
        is_changed |= (then.hashes != now.hashes).any(axis=1)
    is_touched = ~is_changed & (then.states[:, 1] != now.states[:, 1])
    changed, touched = np.flatnonzero(is_changed), np.flatnonzero(is_touched)
    if len(changed):
        first = int(changed[0])
        sizes = [_size(files.states[first, 0]) for files in (then, now)]
        how = f"{sizes[0]} then, {sizes[1]} now" if sizes[0] != sizes[1] else "the same size, other content"
        changes.changed = changes.changed or f"{as_text(now.names[first])} ({how})"
    if len(touched):
        changes.touched = changes.touched or as_text(now.names[int(touched[0])])
    changes.num_changed += len(changed)
    changes.num_touched += len(touched)
    hashes = now.hashes
    if hashes is None and then.hashes is not None:
        hashes = then.hashes.copy()
        hashes[changed] = file_hashes(root, now.names.take(changed))
    return FileList(now.names, now.states, hashes)


def _size(num_bytes: int) -> str:
    return "not there" if num_bytes < 0 else counted(int(num_bytes), "byte")


def other_names(folder: Path, splits: Mapping[str, Split]) -> str:
    """Return which files of a run are no longer there and which are new; nothing where that is not known or none is."""
    now = {name for _, names in files_of(splits).values() for name in names}
    then = {name for files in read_files(folder).values() for name in files.names}
    if not then:
        return ""
    parts = (("not there now", sorted(then - now)), ("new", sorted(now - then)))
    return "; ".join(f"{word}: {_some(names)}" for word, names in parts if names)


def _some(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(as_text(name) for name in names[:limit]) + more


def write_files(folder: Path, files: Mapping[str, FileList]) -> None:
    """Write RUN/picture_files.npz."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for split, listed in files.items():
        blob, ends = listed.names.to_blob()
        columns = (np.frombuffer(blob, np.uint8), np.diff(ends).astype(np.int32), listed.states, listed.hashes)
        for name, column in zip(_COLUMNS, columns, strict=True):
            if column is not None:
                arrays[f"{split}/{name}"] = column

    def write(path: Path) -> None:
        # An open file: to a bare path numpy would append .npz.
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_with(folder / FILE_NAME, write)


def read_files(folder: Path) -> dict[str, FileList]:
    """Return what RUN/picture_files.npz holds, by split; nothing where there is no such file.

    Raises:
        UserError: it cannot be read.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return {}
    found = {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            for split in dict.fromkeys(name.rpartition("/")[0] for name in stored.files):
                names, lengths, states = (stored[f"{split}/{column}"] for column in _COLUMNS[:3])
                ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
                files = FileList(Names.from_blob(names.tobytes(), ends), states, stored.get(f"{split}/hashes"))
                found[split] = files
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        raise UserError(
            f"{path} cannot be read\n  delete it to go on without comparing the picture files with those of before"
        ) from None
    return found
