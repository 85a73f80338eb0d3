"""What a word on the command line names: a recipe, pictures, a run, or nothing that is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from fixres.config.loading import list_recipes

Subject = Literal["recipe", "pictures", "run", "picture", "nothing"]
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?!//)")


def what_is(word: str) -> Subject:
    """Return what a word names. A shipped recipe's name wins, then a file, then a folder or a data URI.

    `./X` is never a shipped recipe's name. A file is a recipe, unless it ends as a table of labels or a picture does; a
    folder with a run or a model in it is a `run`; every other folder holds pictures.
    """
    if word in list_recipes():
        return "recipe"
    path = Path(word)
    if not word:
        return "nothing"
    if path.is_file():
        return _kind_of_file(path)
    if path.is_dir():
        has_run = any((path / name).exists() for name in ("recipe.yaml", "config.json", "model/config.json"))
        return "run" if has_run else "pictures"
    return "pictures" if _is_data_uri(word) else "nothing"


def _kind_of_file(path: Path) -> Subject:
    from fixres.data.picture_formats import EXTENSIONS
    from fixres.data.sources.table_rows import TABLES

    if path.suffix.lower() in TABLES:
        return "pictures"
    return "picture" if path.suffix.lower() in EXTENSIONS else "recipe"


def _is_data_uri(word: str) -> bool:
    match = _SCHEME.match(word)
    if match is None:
        return False
    from fixres.data.collections import schemes

    return match[1].lower() in {scheme.name for scheme in schemes()}
