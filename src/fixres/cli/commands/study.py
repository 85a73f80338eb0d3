"""The command `study`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fixres.cli.commands.train import count_seeds, default_folder, listed_seeds, run_seeds, tell
from fixres.cli.parse import Asked, Positional, TrainOptions, parse_flags, parse_recipe
from fixres.errors import Stopped, UserError, started_rank

if TYPE_CHECKING:
    from fixres.experiments.grid import Grid

_HELP = (
    "Put finished runs of one recipe side by side. With a recipe, runs it first: `fixres study RECIPE --seeds 0,1,2`; "
    "the paper's grid of train and test sizes: `fixres study RECIPE --train-sizes 64,96 --test-sizes 64,96,128 "
    "--seeds 0,1,2`, whose options `fixres study RECIPE --train-sizes 64 --help` lists."
)


@dataclass(frozen=True)
class StudyFlags:
    """Flags of `fixres study` that are not part of the recipe."""

    runs: Annotated[tuple[Path, ...], Positional("RUNS")]
    """Finished runs of one recipe."""
    out: Path | None = None
    """Write the table as JSON to this file."""


@dataclass(frozen=True)
class GridOptions(TrainOptions):
    """Options of a grid beside the recipe's."""

    train_sizes: tuple[int, ...] = ()
    """Sizes to train at."""
    test_sizes: tuple[int, ...] = ()
    """Sizes to fix and to measure at."""
    arms: str = ""
    """none, stats, head, head+stats, head+norm, all, direct, by commas; left out, those that suit the network. What a
    fix moves; none: the network as it is; direct: trained at the test size itself."""
    arm_epochs: str = ""
    """Epochs of single arms in place of the recipe's: all=2,direct=5."""


def study(words: Sequence[str]) -> int:
    """Run a recipe over seeds, measure the paper's grid, or put finished runs side by side.

    `fixres study RECIPE --seeds 0,1,2 [--out DIR] [--section.key VALUE ...]`, the same with `--train-sizes 64,96
    --test-sizes 64,96,128`, or `fixres study RUN RUN ...`.
    """
    names = [word.partition("=")[0].replace("_", "-") for word in words]
    if "--train-sizes" in names or "--test-sizes" in names:
        return _grid(parse_recipe(words, GridOptions, "fixres study"))
    if "--seeds" in names:
        asked = parse_recipe(words, TrainOptions, "fixres study")
        folder = asked.options.out or default_folder(asked.name, asked.recipe, asked.options.resume)
        run_seeds(asked, folder, listed_seeds(asked.options.seeds))
        return 0
    flags = parse_flags(words, StudyFlags, "fixres study", _HELP)
    named = [str(run) for run in flags.runs if not run.is_dir()]
    if named:
        raise UserError(f"{named[0]} is no run folder\n  a recipe needs seeds: fixres study {named[0]} --seeds 0,1,2")
    from fixres.cli.console import Console
    from fixres.experiments.seeds import summarise

    tell(Console(), summarise(flags.runs), flags.out)
    return 0


def _grid(asked: Asked[GridOptions]) -> int:
    """Measure every cell, then write grid.json, grid.md and grid.svg."""
    options = asked.options
    if options.extend:
        raise UserError("--extend goes on with one run; a grid has many\n  give another folder with --out")
    grid, note = _what(asked)
    from fixres.cli.console import Console
    from fixres.experiments.grid import brief, cells_of, run_grid
    from fixres.experiments.seeds import as_markdown, summarise_grid
    from fixres.io.files import write_text
    from fixres.reporting.figures import draw_grid

    folder = options.out or default_folder(asked.name, asked.recipe, options.resume).with_name(
        f"{Path(asked.name).stem or 'run'}-grid"
    )
    is_main = started_rank() == 0
    console = Console(options.quiet or not is_main, options.verbose)
    if note:
        console.say(note)
    if options.dry_run:
        cells_wanted = cells_of(grid)
        trainings = {(cell.train_size, cell.seed) for cell in cells_wanted}
        console.say(f"{len(cells_wanted)} cells from {len(trainings)} trainings, into {folder}")
        return 0
    try:
        cells = run_grid(grid, folder, resume=options.resume, listeners=[console], checks=options.checks)
    except (KeyboardInterrupt, Stopped):
        console.say(
            f"stopped; what is measured is kept: the same command with --out {shlex.quote(str(folder))} --resume"
        )
        raise
    finally:
        console.close()
    if not is_main:
        return 0
    entries = summarise_grid(cells)
    content: dict[str, Any] = {"recipe": asked.name, "data": asked.recipe.data.uri, "model": asked.recipe.model.name}
    content |= {"split": cells[0]["split"], "arm_epochs": dict(grid.epochs)}
    content |= {"cells": [brief(cell) for cell in cells], "summary": entries}
    write_text(folder / "grid.json", json.dumps(content, indent=2) + "\n")
    title = f"{asked.recipe.model.name}, {asked.recipe.data.uri}, measured on {cells[0]['split']}"
    text = as_markdown(entries, title)
    write_text(folder / "grid.md", text)
    draw_grid(entries, folder / "grid.svg")
    console.say(text)
    console.say(f"written: {folder}/grid.json, grid.md and grid.svg")
    return 0


def _what(asked: Asked[GridOptions]) -> tuple[Grid, str]:
    """Return what the command line asks for, and which arms were left out.

    Raises:
        UserError: sizes, arms or seeds that make no grid.
    """
    options = asked.options
    if not options.seeds:
        raise UserError("a grid needs seeds\n  --seeds 0,1,2")
    epochs: dict[str, int] = {}
    for part in filter(None, options.arm_epochs.split(",")):
        arm, _, number = part.partition("=")
        if not number.isdecimal() or int(number) == 0:
            raise UserError(f"--arm-epochs {part}: give ARM=EPOCHS, for example all=2")
        epochs[arm.strip()] = int(number)
    arms = tuple(dict.fromkeys(arm.strip() for arm in options.arms.split(",") if arm.strip()))
    seeds = tuple(count_seeds(options.seeds, asked.recipe.seed))
    from fixres.experiments.grid import Grid, all_arms, check_grid, unsuited_arms

    train_sizes, test_sizes = (tuple(sorted(set(sizes))) for sizes in (options.train_sizes, options.test_sizes))
    note = ""
    if not arms and train_sizes and test_sizes:
        reasons = unsuited_arms(asked.recipe, all_arms(), (*train_sizes, *test_sizes))
        arms = tuple(arm for arm in all_arms() if arm not in reasons)
        note = "\n".join(f"left out: {reason}" for reason in dict.fromkeys(reasons.values()))
    grid = Grid(asked.recipe, train_sizes, test_sizes, arms, seeds, epochs)
    check_grid(grid)
    return grid, note
