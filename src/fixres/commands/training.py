"""Commands that train: `train`, `fix`, `study`, `demo`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from fixres.commands.opening import open_product
from fixres.config import Recipe
from fixres.errors import UserError
from fixres.parsing import parse_flags, parse_recipe

if TYPE_CHECKING:
    from fixres.console import Console


def train(words: Sequence[str]) -> int:
    """`fixres train RECIPE [--out DIR] [--resume] [--dry-run] [--section.key VALUE ...]`."""
    recipe, flags, _ = parse_recipe(words)
    from fixres.console import Console
    from fixres.run import dry_run, run_recipe

    folder = flags.out or Path(recipe.output.dir or default_folder(flags.recipe, recipe, flags.resume))
    console = Console(flags.quiet, flags.verbose)
    if flags.dry_run:
        for line in dry_run(recipe):
            console.say(line)
        return 0
    try:
        run_recipe(recipe, folder, resume=flags.resume, listeners=[console])
    except KeyboardInterrupt:
        _say_how_to_go_on(console, folder)
        raise
    finally:
        console.close()
    _finish_run(console, folder)
    return 0


def _say_how_to_go_on(console: Console, folder: Path) -> None:
    recipe = shlex.quote(str(folder / "recipe.yaml"))
    console.say(f"stopped; go on with\n  fixres train {recipe} --out {shlex.quote(str(folder))} --resume")


def _finish_run(console: Console, folder: Path) -> None:
    """Write the run's page and say what can be typed next."""
    from fixres.report import write_report

    page = write_report([folder], folder / "report.html")
    console.say(f"run folder: {folder}\nreport: {page}")
    for next_step in ("fixres eval {}", "fixres predict {} PICTURE"):
        console.say("  " + next_step.format(shlex.quote(str(folder))))


def default_folder(name: str, recipe: Recipe, resume: bool) -> Path:
    """Return runs/RECIPE-MODEL-SIZE, with a number appended while a run is there; to resume, the newest of these."""
    first = Path("runs") / "-".join([Path(name).stem or "run", recipe.model.name, str(recipe.train.size)])
    number, newest, folder = 2, first, first
    while folder.exists():
        newest, folder = folder, first.with_name(f"{first.name}-{number}")
        number += 1
    return newest if resume else folder


@dataclass(frozen=True)
class FixFlags:
    """Flags of `fixres fix`."""

    checkpoint: tyro.conf.Positional[str]
    """Run folder, model folder, weights file with --model, or timm: hf-hub: fixres: url: package: and a name."""
    size: Annotated[int | Literal["auto"], tyro.conf.arg(metavar="N|auto")]
    """Size to fix at, in pixels; auto: chosen on the selecting split."""
    data: str | None = None
    """Data URI; the product's own when left out."""
    moves: Literal["auto", "head", "head+stats", "all"] | None = None
    """Which tensors may change. Left out, this and the next five are as in the run's own fix, else the defaults."""
    solver: Literal["sgd"] | None = None
    """How the stage is solved."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes over the training split."""
    lr: float | None = None
    """Peak learning rate."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Global batch."""
    augment: Literal["none", "flip", "v1", "v2"] | None = None
    """none and v1: the test-time preprocessing alone; v2: with flip, mild jitter and shifted crop."""
    model: str | None = None
    """Architecture of a bare weights file."""
    weights: str = "fixed"
    """raw or ema of a training checkpoint; a file for timm:NAME."""
    train_size: Annotated[int, Field(ge=1)] | None = None
    """Size the network was trained at, where the checkpoint does not say; timm's for a bare weights file."""
    seed: int = 0
    """Seed."""
    out: Path | None = None
    """Run folder to write."""
    quiet: bool = False
    """Print results only."""


def fix(words: Sequence[str]) -> int:
    """`fixres fix CKPT --size N|auto [--data URI] [--moves M] [--epochs E] [--augment none|v1|v2] [--out DIR]`."""
    flags = parse_flags(words, FixFlags, "fixres fix", "Adapt the end of a trained network to a larger size.")
    from fixres.console import Console
    from fixres.measure import own_split
    from fixres.product import load
    from fixres.run import run_recipe
    from fixres.start import fix_recipe

    console = Console(flags.quiet)
    product = open_product(console, flags.checkpoint, flags.weights, flags.model)
    if product.details.get("before_fix"):
        # A fix starts from the network as it was trained, not from a head fixed for another size.
        product = load(flags.checkpoint, "before_fix")
    if flags.train_size is not None:
        product = replace(product, train_size=flags.train_size)
    names = ("size", "moves", "solver", "epochs", "lr", "batch_size", "augment")
    settings = {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}
    recipe = fix_recipe(product, flags.data, settings, flags.seed)
    folder = flags.out or _beside(flags.checkpoint, f"fix-{flags.size}")
    try:
        run_recipe(recipe, folder, listeners=[console], split_from=own_split(product, flags.data))
    except KeyboardInterrupt:
        _say_how_to_go_on(console, folder)
        raise
    except UserError as error:
        raise UserError(str(error).replace("--fix.", "--")) from error
    finally:
        console.close()
    _finish_run(console, folder)
    return 0


def _beside(source: str, suffix: str) -> Path:
    checkpoint = Path(source)
    if not checkpoint.exists():
        return Path("runs") / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', source)}-{suffix}"
    base = checkpoint.parent if checkpoint.name == "model" or checkpoint.is_file() else checkpoint
    return base.with_name(f"{base.resolve().name}-{suffix}")


@dataclass(frozen=True)
class StudyFlags:
    """Flags of `fixres study` that are not part of the recipe."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Finished runs of one recipe."""
    out: Path | None = None
    """Write the table as JSON to this file."""


def study(words: Sequence[str]) -> int:
    """`fixres study RECIPE --seeds 0,1,2 [--out DIR] [--section.key VALUE ...]`, or `fixres study RUN RUN ...`."""
    from fixres.console import Console, study_table
    from fixres.run import run_recipe
    from fixres.runlog import write_text
    from fixres.study import summarise

    console = Console()
    words, seeds = take_seeds(list(words))
    if seeds is None:
        flags = parse_flags(words, StudyFlags, "fixres study", "Put finished runs of one recipe side by side.")
        if not flags.runs:
            raise UserError("nothing to study\n  fixres study RECIPE --seeds 0,1,2, or fixres study RUN RUN ...")
        named = [str(run) for run in flags.runs if not run.is_dir()]
        if named:
            raise UserError(
                f"{named[0]} is no run folder\n  a recipe needs seeds: fixres study {named[0]} --seeds 0,1,2"
            )
        runs, out = list(flags.runs), flags.out
    else:
        recipe, train_flags, _ = parse_recipe(words, "fixres study")
        folder = train_flags.out or default_folder(train_flags.recipe, recipe, train_flags.resume)
        runs, out = [folder / f"seed-{seed}" for seed in seeds], folder / "study.json"
        for seed, run in zip(seeds, runs, strict=True):
            console.say(f"seed {seed}")
            listener = Console(train_flags.quiet, train_flags.verbose)
            try:
                run_recipe(
                    recipe.model_copy(update={"seed": seed}), run, resume=train_flags.resume, listeners=[listener]
                )
            finally:
                listener.close()
    found = summarise(runs)
    console.table(*study_table(found))
    if out is not None:
        write_text(out, json.dumps(found.as_dict(), indent=2) + "\n")
    return 0


def take_seeds(words: list[str]) -> tuple[list[str], list[int] | None]:
    """Split `--seeds 0,1,2` (or `--seeds=0,1,2`) off a command line; None when it is not there."""
    for i, word in enumerate(words):
        if word == "--seeds" or word.startswith("--seeds="):
            end = i + 1 if "=" in word else i + 2
            text = word.partition("=")[2] or " ".join(words[i + 1 : i + 2])
            try:
                seeds = [int(part) for part in text.split(",")]
            except ValueError:
                raise UserError(f"--seeds {text or '(nothing)'}: give numbers, --seeds 0,1,2") from None
            if len(set(seeds)) != len(seeds):
                raise UserError(f"--seeds {text}: a seed is named twice")
            return words[:i] + words[end:], seeds
    return words, None


def demo(words: Sequence[str]) -> int:
    """`fixres demo [--out DIR]`."""
    from fixres.demo import DemoFlags, run_demo

    return run_demo(parse_flags(words, DemoFlags, "fixres demo", "The whole method on real photographs."))
