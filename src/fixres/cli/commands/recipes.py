"""The command `recipes`: the shipped recipes, listed, printed or copied."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fixres.cli.parse import Positional, parse_flags
from fixres.config.lab_record import read_record, recipe_table
from fixres.config.loading import find_recipe, list_recipes, load, to_yaml
from fixres.errors import UserError


@dataclass(frozen=True)
class RecipesFlags:
    """The flags of `fixres recipes`."""

    name: Annotated[str, Positional("NAME")] = ""
    """A shipped recipe or a YAML file, to be printed; a folder of recipes, or none: list those."""
    full: bool = False
    """Print it with every default filled in, without its comments."""
    out: Path | None = None
    """Copy the recipe there, as it is written, to change it."""


def _copy(name: str, out: Path) -> None:
    """Copy the recipe `name`, comments included, to the new file `out`; UserError when that exists."""
    if not name:
        raise UserError("which recipe is to be copied?\n  fixres recipes NAME --out FILE.yaml")
    text = find_recipe(name).read_text(encoding="utf-8")
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"'{out}' exists; give another name") from None
    except OSError as error:
        raise UserError(f"cannot write '{out}': {error.strerror}") from None


def recipes(words: Sequence[str]) -> int:
    """List the shipped recipes; print one; or copy one with --out."""
    flags = parse_flags(words, RecipesFlags, "fixres recipes", "List the shipped recipes, or print one.")
    if flags.out is not None:
        _copy(flags.name, flags.out)
        sys.stderr.write(f"written: {flags.out}\n")
        return 0
    folder = f"{flags.name.rstrip('/')}/" if flags.name else ""
    listed = {name: path for name, path in list_recipes().items() if name.startswith(folder)}
    if listed:
        sys.stdout.write(recipe_table(listed))
    else:
        path, recipe = find_recipe(flags.name), load(flags.name)
        as_written = path.read_text(encoding="utf-8")
        sys.stdout.write(to_yaml(recipe, header=read_record(path).title) if flags.full else as_written)
    return 0
