"""The command line: finds the command, and turns errors into exit codes.

Nothing heavy is imported here: a command's module is imported when the command is known.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fixres.errors import EXIT_USER_ERROR, UserError, did_you_mean, printable

EXIT_INTERRUPTED = 130
_EXIT_BROKEN_PIPE = 141


class Command(NamedTuple):
    """Where a command lives (`module:function`, called with its words) and its line of help."""

    target: str
    summary: str


COMMANDS = {
    "demo": Command("fixres.commands.training:demo", "the whole method on real photographs, in minutes"),
    "train": Command("fixres.commands.training:train", "train a recipe: small first, then the fix"),
    "fix": Command("fixres.commands.training:fix", "adapt the end of a trained network to a larger size"),
    "eval": Command("fixres.commands.using:eval", "accuracy of a checkpoint at any sizes"),
    "predict": Command("fixres.commands.using:predict", "classify pictures"),
    "study": Command(
        "fixres.commands.training:study", "one recipe over several seeds: mean, spread, paired difference"
    ),
    "report": Command("fixres.commands.using:report", "one HTML page about one or more runs"),
    "models": Command("fixres.commands.catalogue:models", "list architectures: parameters, GMACs, sizes, last norm"),
    "import": Command("fixres.commands.weights:import_", "any checkpoint to a model folder, strictly and safely"),
    "data": Command("fixres.commands.data:data", "check, describe, draw, split, pack and prepare collections"),
    "fetch": Command("fixres.commands.weights:fetch", "download released weights, with resume and checksum"),
    "recipes": Command("fixres.cli:recipes", "list the shipped recipes, or print one in full"),
    "bench": Command("fixres.commands.bench:bench", "speed of reading pictures, beside torchvision and timm"),
    "doctor": Command("fixres.commands.using:doctor", "what this machine has, and what it lacks"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 2 the user's mistake, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except UserError as error:
        print(f"fixres: {printable(str(error))}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("fixres: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_BROKEN_PIPE
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    else:
        return code


def help_text() -> str:
    """Return what `fixres --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fixres COMMAND [...]",
            "",
            "Train small, measure accuracy against size, fix at the best size, ship.",
            "",
            *lines,
            "",
            "'fixres COMMAND --help' explains a command; 'fixres --version' prints the version.",
        ]
    )


def recipes(words: Sequence[str]) -> int:
    """List the shipped recipes; print one in full; or copy one with --out."""
    from fixres.parsing import parse_flags
    from fixres.reference import RecipesFlags, copy_recipe, full_recipe, recipe_list

    flags = parse_flags(words, RecipesFlags, "fixres recipes", "List the shipped recipes, or print one in full.")
    if flags.out is not None:
        copy_recipe(flags.name, flags.out)
        print(f"written: {flags.out}", file=sys.stderr)
    elif flags.name:
        print(full_recipe(flags.name), end="")
    else:
        print(recipe_list(), end="")
    return 0


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if words[0] in ("-V", "--version"):
        import fixres

        print(f"fixres {fixres.__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or f"\n  commands: {', '.join(COMMANDS)}"
        raise UserError(f"unknown command '{name}'{hint}")
    module, _, function = COMMANDS[name].target.partition(":")
    run: Callable[[list[str]], int | None] = getattr(importlib.import_module(module), function)
    return run(rest) or 0
