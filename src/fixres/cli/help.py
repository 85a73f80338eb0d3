"""`--help` of a command: tyro's text, in the words that `cli.parse` accepts."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, NoReturn

from fixres.config.recipe import Recipe

RECIPE_HELP = """Train a recipe: small first, then the fix at a larger size.

Every key of the recipe is a flag and shows the value it has in RECIPE. Lists are separated by commas or spaces;
anything the network takes is --model.kwargs.NAME VALUE."""


def print_recipe_help(prog: str, recipe: Recipe, cls: type[Any], description: str) -> NoReturn:
    """Print every flag and every key of `recipe` with its value, then raise SystemExit(0)."""
    import tyro

    word = tyro.conf.arg(metavar="[RECIPE]", help="A shipped recipe or a YAML file; none: the defaults.")
    fields: list[tuple[str, Any, Any]] = [
        ("recipe", Annotated[str, tyro.conf.Positional, word], field(default="")),
        ("flags", Annotated[cls, tyro.conf.arg(name="")], field(default=cls())),
    ]
    for name, entry in Recipe.model_fields.items():
        if name not in (("train", "fix") if recipe.stages else ("stages",)):
            hint: Any = Annotated[
                (entry.annotation, tyro.conf.FlagConversionOff, tyro.conf.arg(help=entry.description))
            ]
            fields.append((name, hint, field(default=getattr(recipe, name))))
    spelling = {"{True,False}": "{true,false}"}
    spelling |= {f"--{entry.name}": f"--{entry.name.replace('_', '-')}" for entry in dataclasses.fields(cls)}
    print_help(dataclasses.make_dataclass("Command", fields), prog, description, spelling)


def print_help(cls: type[Any], prog: str, description: str, spelling: Mapping[str, str] | None = None) -> NoReturn:
    """Print tyro's help in the words that this module accepts, then raise SystemExit(0)."""
    import tyro

    captured = io.StringIO()
    with contextlib.redirect_stdout(captured), contextlib.suppress(SystemExit):
        tyro.cli(
            cls,
            args=["--help"],
            prog=prog,
            description=description,
            config=(tyro.conf.FlagCreatePairsOff,),
            use_underscores=bool(spelling),
        )
    text = re.sub(r"\{None\}\|(\S+)", r"\1       ", captured.getvalue())
    text = re.sub(r"\s*\(default:\s+(?:''|None)\)", "", text)
    for given, ours in (spelling or {}).items():
        text = text.replace(given, ours)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in text.splitlines()))
    raise SystemExit(0)
