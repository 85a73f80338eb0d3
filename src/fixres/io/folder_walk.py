"""The one walk of folders: links are followed with care, what systems keep for themselves is left alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fixres.errors import UserError

_CLUTTER = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
    }
)
"""What systems put beside people's files without hiding it, in lower case; some of it holds pictures of pictures."""


class Visited(NamedTuple):
    """A file that a walk came by, or a folder of a system's that it did not enter."""

    path: str
    """Below the folder that was walked, with `/`; a folder's ends with one."""
    is_hidden: bool
    is_file: bool
    """Whether it is an ordinary file or a link, which may lead nowhere; not so pipes, sockets and devices."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden or a system's own, by its name."""
    return name.startswith(".") or is_system(name)


def is_system(name: str) -> bool:
    """Return whether a system put this file or folder there, in plain sight."""
    return name.lower() in _CLUTTER


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one that can be followed."""
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself, or into a folder that may not be entered


def entries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    """Yield all that lies in a folder, in no order.

    Raises:
        UserError: it cannot be read.
    """
    try:
        scanned = os.scandir(folder)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror})") from None
    with scanned as found:
        yield from found


def walk(folder: Path | str, *, is_deep: bool = True) -> Iterator[Visited]:
    """Yield what lies below a folder as sorting the paths would order it, in every folder the linked folders last.

    Links are followed, to each folder once: a link to a folder above would never end, and a dozen folders that link to
    each other have more ways through them than can be walked. Hidden files are yielded, hidden folders not entered;
    without `is_deep` no folder is.

    Raises:
        UserError: a folder cannot be read.
    """
    yield from _walk(os.fspath(folder), "", set(), is_deep)


def _walk(folder: str, prefix: str, seen: set[str], is_deep: bool) -> Iterator[Visited]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    found = [(is_folder(entry), entry) for entry in entries(folder)]
    for leads_on, entry in sorted(found, key=_order):
        hidden = is_hidden(entry.name)
        path = f"{prefix}{entry.name}/" if leads_on else prefix + entry.name
        if not leads_on or hidden:
            yield Visited(path, hidden, not leads_on and (entry.is_symlink() or entry.is_file()))
        elif is_deep:
            yield from _walk(entry.path, path, seen, is_deep)


def _order(found: tuple[bool, os.DirEntry[str]]) -> tuple[bool, str]:
    leads_on, entry = found
    return leads_on and entry.is_symlink(), entry.name + "/" * leads_on
