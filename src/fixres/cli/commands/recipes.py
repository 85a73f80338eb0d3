"""The command `recipes`: the shipped recipes, listed, printed or copied."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fixres.cli.parse import Positional, parse_flags
from fixres.config.lab_record import recipe_table
from fixres.config.loading import find_recipe, list_recipes, load, summary, to_yaml
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


def recipe_list(folder: str = "") -> str:
    """Return the shipped recipes, or those of a folder, by system and table, one a line; empty: there are none."""
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    shipped = {name: path for name, path in list_recipes().items() if name.startswith(prefix)}
    return recipe_table(shipped) if shipped else ""


def printed_recipe(name: str, *, full: bool) -> str:
    """Return the recipe `name` as it is written, or as YAML with every default filled in."""
    path = find_recipe(name)
    recipe = load(name)
    return to_yaml(recipe, header=summary(path)) if full else path.read_text(encoding="utf-8")


def copy_recipe(name: str, out: Path) -> None:
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
        copy_recipe(flags.name, flags.out)
        sys.stderr.write(f"written: {flags.out}\n")
    elif listed := recipe_list(flags.name):
        sys.stdout.write(listed)
    else:
        sys.stdout.write(printed_recipe(flags.name, full=flags.full))
    return 0
