"""The official files of a set: found among the user's, told apart and checked, or fetched from where they are served.

Files of the user are only ever read.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from fixres.data.prepare.known_sets import SETS, find_set
from fixres.data.prepare.parts import DataSet, Options, Progress, SourceFile
from fixres.errors import UserError
from fixres.io.archives import unpacked_bytes
from fixres.io.download.cache import fetch
from fixres.io.files import files

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
    folder = source if source.is_dir() else source.parent
    present: dict[str, Path] = {}
    for key, file in info.files.items():
        # Archive files are told from folders later, by what they are.
        places = [source if source.name == name else folder / name for name in file.names]
        if there := [path for path in places if path.exists()]:
            present[key] = there[0]
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
    """Return about how many bytes the pictures in the sources have: pictures do not get smaller by packing.

    Raises:
        UserError: an archive cannot be read, or was made to fill the disk.
    """
    paths = [path for key, path in found.items() if info.files[key].is_picture_archive]
    return sum(
        unpacked_bytes(path) if path.is_file() else sum(file.stat().st_size for file in files(path)) for path in paths
    )


def download(name: str, out: Path, progress: Progress | None = None) -> list[Path]:
    """Fetch the files of data set `name` into folder `out` and return their paths.

    What is there is checked, not fetched again; what broke off goes on; what has a published checksum must match it.

    Raises:
        UserError: unknown set, or one that cannot be had without an account; no network, no room, a wrong file.
    """
    info = find_set(name)
    if not info.can_download:
        fetchable = ", ".join(entry.name for entry in SETS.values() if entry.can_download)
        raise UserError(
            f"{info.title} cannot be fetched for you\n  {where_to_get(info)}\n"
            f"  then: fixres data prepare {info.name} --from DIR --out DIR\n  can be fetched: {fetchable}"
        )
    out = out.expanduser().absolute()
    wanted = [file for file in info.files.values() if file.url]
    try:
        out.mkdir(parents=True, exist_ok=True)
        _check_room(info, wanted, out)
    except OSError as error:
        raise UserError(f"{out} cannot be used ({error.strerror or error})\n  use another --out") from error
    paths = []
    for file in wanted:
        tell = partial(progress, f"fetching {file.names[0]}") if progress is not None else None
        paths.append(fetch(file.url, md5=file.md5, folder=out, name=file.names[0], progress=tell))
    return paths


def _check_room(info: DataSet, wanted: list[SourceFile], out: Path) -> None:
    """Refuse to begin what would not fit; `fetch` checks every file again with the length its server states."""
    needed = 0
    for file in wanted:
        target = out / file.names[0]
        part = target.with_name(target.name + ".part")
        done = part.stat().st_size if part.exists() else 0
        needed += 0 if target.exists() else max(file.megabytes * 10**6 - done, 0)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise UserError(
            f"{info.title} needs about {needed / 1e9:.1f} GB in {out}, {free / 1e9:.1f} GB are free\n"
            "  make room, or use another --out"
        )
