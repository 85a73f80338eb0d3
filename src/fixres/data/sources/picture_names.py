"""Names of pictures as tables have them, ids without an ending among them, to the files they mean."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from fixres.data.picture_formats import EXTENSIONS, ending
from fixres.data.picture_walk import pictures_below
from fixres.data.sources.missing_files import is_there
from fixres.errors import UserError


class PictureNames:
    """The pictures below a folder, by the names that tables give them; the folder is walked when it has to be.

    A name that ends as pictures do is a path. One without a folder that is not there is looked for further below. An
    id is the name of a file without its ending, in the folder or further below; `a/0001` is `a/0001.jpg`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._are_paths = False

    def files(self, name: str) -> list[str]:
        """Return the paths below the folder that a name can mean; none where there is no such file."""
        key = _plain(name)
        if ending(name) not in EXTENSIONS:
            return self._by_stem.get(key, []) if "/" not in key else self._by_path.get(key, [])
        return self._by_file.get(key, []) if "/" not in key else []

    def path_of(self, name: str, where: str, other_root: str) -> str:
        """Return the path a name means, the name itself where nothing of it is there.

        Args:
            name: as it stands in the table.
            where: the table and the line, for messages.
            other_root: how another folder is named, with DIR in its place.

        Raises:
            UserError: it can mean several files.
        """
        is_path = ending(name) in EXTENSIONS
        if name.startswith("/") or "\\" in name or (is_path and ("/" in name or self._are_paths)):
            return name
        if is_there(self.root / name):
            # Of a million pictures in one folder not every one is asked for.
            self._are_paths = is_path
            return name
        found = self.files(name)
        if len(found) > 1:
            first, second = found[:2]
            folders = [os.path.dirname(path) for path in found]  # noqa: PTH120 - parts of names
            one = next((folder for folder in folders if folder and folders.count(folder) == 1), "")
            advice = other_root.replace("DIR", str(self.root / one)) if one else "name them with their endings"
            raise UserError(f"{where}: '{name}' may be {first} or {second} in {self.root}\n  {advice}")
        return found[0] if found else name

    @cached_property
    def paths(self) -> list[str]:
        """Every picture below the folder."""
        return [path for path, reason in pictures_below(self.root) if not reason] if self.root.is_dir() else []

    @cached_property
    def _by_path(self) -> dict[str, list[str]]:
        return _grouped(self.paths, lambda path: path[: -len(ending(path))])

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped(self.paths, lambda path: path.rpartition("/")[2][: -len(ending(path))])

    @cached_property
    def _by_file(self) -> dict[str, list[str]]:
        return _grouped(self.paths, lambda path: path.rpartition("/")[2])


def _grouped(paths: list[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(_plain(key(path)), []).append(path)
    return found


def _plain(name: str) -> str:
    """Return the one spelling of a name."""
    return unicodedata.normalize("NFC", name.removeprefix("./"))
