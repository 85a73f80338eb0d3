"""The user's archives: found, told apart, and checked. They are only ever read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fixres.data.prepare.parts import DataSet, Options, Progress, SourceFile
from fixres.errors import UserError

_READ_BYTES = 2**22


def locate(info: DataSet, source: Path, options: Options) -> tuple[dict[str, Path], list[str]]:
    """Return the files of the best layout that is there, by key, and notes on what is not.

    `source` is the folder of the archives, or one archive, or one unpacked archive.

    Raises:
        UserError: nothing there makes the set; says what is looked for and where it can be had.
    """
    source = source.expanduser().absolute()
    if not source.exists():
        raise UserError(f"there is no folder {source}\n{_wanted(info)}")
    present = {key: path for key, file in info.files.items() if (path := _find(source, file)) is not None}
    for layout in info.layouts:
        if set(layout) <= set(present):
            return {key: present[key] for key in layout}, []
    for layout in info.partial_layouts if options.allow_partial else ():
        if set(layout) <= set(present):
            absent = [info.files[key].names[0] for key in info.layouts[0] if key not in present]
            return {key: present[key] for key in layout}, [f"without {', '.join(absent)}, which is not there"]
    here = ", ".join(path.name for path in present.values())
    what = f"it holds {here}, but not all of" if here else "it holds none of"
    raise UserError(f"{info.title} cannot be made from {source}: {what} the files needed\n{_wanted(info)}")


def _find(source: Path, file: SourceFile) -> Path | None:
    for name in file.names:
        if source.name == name:
            return source
        folder = source if source.is_dir() else source.parent
        # Archive files are told from folders later, by what they are.
        if (folder / name).exists():
            return folder / name
    return None


def _wanted(info: DataSet) -> str:
    """Return what is looked for, one line per layout, and where it can be had."""
    layouts = [" + ".join(_spelled(info.files[key]) for key in layout) for layout in info.layouts]
    lines = [f"  {'looked for:' if i == 0 else '        or:'} {text}" for i, text in enumerate(layouts)]
    return "\n".join([*lines, f"  {where_to_get(info)}"])


def _spelled(file: SourceFile) -> str:
    first, *others = file.names
    return f"{first} ({'or ' + ', '.join(others)})" if others else first


def where_to_get(info: DataSet) -> str:
    """Return what to type, or what to do, to have the files of a set."""
    if info.can_download:
        return f"fixres data download {info.name} --out DIR   fetches what is needed ({info.page})"
    return f"{info.how_to_get}\n  {info.page}"


def fingerprint(found: Mapping[str, Path]) -> dict[str, dict[str, object]]:
    """Return what tells whether the sources are still the same: name, bytes and time of change, by key."""
    prints: dict[str, dict[str, object]] = {}
    for key, path in found.items():
        status = path.stat()
        prints[key] = {"name": path.name}
        if path.is_file():
            prints[key] |= {"bytes": status.st_size, "changed_ns": status.st_mtime_ns}
    return prints


def published_md5(info: DataSet, key: str, path: Path) -> str:
    """Return the published checksum of the file at `path`; empty where it is not the published file."""
    file = info.files[key]
    return file.md5 if path.is_file() and path.name == file.names[0] else ""


def md5_of(path: Path, progress: Progress) -> str:
    """Return the MD5 of a file, in hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    digest = hashlib.md5(usedforsecurity=False)
    total, done = path.stat().st_size, 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
                done += len(chunk)
                progress(f"checking {path.name}", done, total)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()


def picture_bytes(info: DataSet, found: Mapping[str, Path]) -> int:
    """Return about how many bytes the pictures in the sources have: pictures do not get smaller by packing."""
    return sum(_size(path) for key, path in found.items() if info.files[key].is_picture_archive)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(_sizes(path))


def _sizes(root: Path) -> Sequence[int]:
    return [os.stat(os.path.join(top, name)).st_size for top, _, files in os.walk(root) for name in files]  # noqa: PTH116, PTH118
