"""Which files of a folder are pictures, and what is said of the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fixres.data.picture_formats import EXTENSIONS, ending, how_to_convert, unread_format
from fixres.errors import counted
from fixres.io.folder_walk import Visited, walk

NO_PICTURE = "no picture by its name"
_HIDDEN = "hidden"
_SYSTEM = "a system's own"
_NAMED = 3


def pictures_below(folder: Path | str, *, is_deep: bool = True) -> Iterator[tuple[str, str]]:
    """Yield every file below a folder, in the order of `walk`: its path, and why it is passed over, "" for a picture.

    A link to nothing counts: its picture is missing, which reading it will say. Of what is hidden only pictures are
    told.

    Raises:
        UserError: a folder cannot be read.
    """
    for visited in walk(folder, is_deep=is_deep):
        reason = _why_not(visited)
        if reason is not None:
            yield visited.path, reason


def _why_not(visited: Visited) -> str | None:
    """Return why a file is no picture to be read, "" where it is one, None where nobody would miss it."""
    path, is_picture = visited.path, ending(visited.path) in EXTENSIONS
    if path.endswith("/"):
        is_dotted = path.rstrip("/").rpartition("/")[2].startswith(".")
        return None if is_dotted else _SYSTEM
    if visited.is_hidden and path.rpartition("/")[2].startswith("."):
        return _HIDDEN if is_picture else None
    if is_picture:
        return "" if visited.is_file else NO_PICTURE
    name = unread_format(path)
    return f"{name}, {how_to_convert(path)}" if name else NO_PICTURE


class PassedOver:
    """Files that were found and not used: how many for each reason, and the first of them."""

    def __init__(self) -> None:
        self._num: dict[tuple[str, str], int] = {}
        self._first: dict[tuple[str, str], list[str]] = {}

    def add(self, path: str, reason: str, split: str = "all") -> None:
        """Count one."""
        kind = split, reason
        self._num[kind] = self._num.get(kind, 0) + 1
        first = self._first.setdefault(kind, [])
        if len(first) < _NAMED:
            first.append(path)

    def in_words(self) -> list[str]:
        """Return a line for every split and reason, with the first files."""
        lines = []
        # What people hid themselves, or their system did, they miss last.
        for (split, reason), num in sorted(self._num.items(), key=lambda kind: kind[0][1] == _HIDDEN):
            where = "" if split == "all" else f" of {split}"
            what = counted(num, "folder" if reason == _SYSTEM else "file")
            first = self._first[split, reason]
            lines.append(f"{what}{where} ignored, {reason}: {', '.join(first)}" + (", ..." if num > _NAMED else ""))
        return lines
