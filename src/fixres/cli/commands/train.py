"""The command `train`, and what the other commands that train share."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixres.cli.console import Console, study_table
from fixres.cli.parse import Asked, TrainOptions, first_word, parse_recipe
from fixres.cli.subject import what_is
from fixres.config.recipe import Recipe
from fixres.errors import Stopped, UserError, started_rank

if TYPE_CHECKING:
    from fixres.experiments.seeds import Study
    from fixres.runtime.run_folder import Listener

STARTED = time.monotonic()
"""When the command began, before anything large is imported."""


def train(words: Sequence[str]) -> int:
    """`fixres train PHOTOS [--minutes M] [--models A,B] [--final]`, or `RECIPE [--seeds N] [--dry-run]`.

    Both take `[--out DIR] [--resume] [--section.key VALUE ...]`.
    """
    word = first_word(words)
    if what_is(word) == "pictures":
        return _train_pictures(words, word)
    asked = parse_recipe(words, TrainOptions)
    recipe, flags = asked.recipe, asked.options
    from fixres.experiments.cost import dry_run
    from fixres.training.run import run_recipe

    _refuse(flags, ("minutes", "models", "final"), "chooses for pictures, and a recipe has chosen", "leave it out")
    folder = flags.out or Path(recipe.output.dir or default_folder(asked.name, recipe, flags.resume))
    console = Console(flags.quiet or started_rank() != 0, flags.verbose)
    if flags.dry_run:
        for line in dry_run(recipe):
            console.say(line)
        _say_what_is_shorter(console, asked)
        return 0
    if flags.extend and not flags.resume:
        raise UserError("--extend goes on with a run\n  add --resume")
    if flags.seeds:
        run_seeds(asked, folder, count_seeds(flags.seeds, recipe.seed), words)
        return 0

    def tell_once(event: Mapping[str, Any]) -> None:
        # When the pictures are open: a mistake before has one message.
        if event["event"] == "begin":
            _say_what_is_shorter(console, asked)

    listeners: list[Listener] = [console, tell_once]
    with followed(console, folder):
        run_recipe(recipe, folder, resume=flags.resume, extend=flags.extend, listeners=listeners, checks=flags.checks)
    return 0


def _train_pictures(words: Sequence[str], uri: str) -> int:
    """Choose network, size and rate for pictures, train within the minutes, and write a run folder."""
    rest = list(words)
    rest.remove(uri)
    asked = parse_recipe(["--data.uri", uri, *rest], TrainOptions)
    flags = asked.options
    what = "is for a recipe; for pictures"
    _refuse(flags, ("extend", "seeds"), what, "run the recipe that the run writes, RUN/recipe.yaml")
    from fixres.experiments.first_look import what_is_tried
    from fixres.experiments.own_pictures import MINUTES, Wish, train_pictures
    from fixres.experiments.refit import FOLDER, refit, require_own
    from fixres.runtime.run_folder import read_status

    folder = flags.out or Path(asked.recipe.output.dir or _folder_for(uri, flags.resume))
    console = Console(flags.quiet or started_rank() != 0, flags.verbose)
    settings = {key: value for key, value in asked.overrides.items() if key != "data.uri"}
    models = tuple(name for name in flags.models.split(",") if name)
    wish = Wish(uri, flags.minutes or MINUTES, models, settings)
    if flags.dry_run:
        for line in what_is_tried(uri, wish.minutes, models, settings):
            console.say(line)
        return 0
    again = shlex.join(["fixres", "train", *(word for word in words if word != "--resume"), "--resume"])
    again += "" if flags.out else f" --out {shlex.quote(str(folder))}"
    if (flags.final or flags.resume) and read_status(folder).get("state") == "done":
        require_own(folder, uri, settings, models)
        name, last = shlex.quote(str(folder)), folder / FOLDER if flags.final else folder
        if read_status(last).get("state") == "done":
            what = f"fixres eval {name}" if flags.final else f"fixres train {shlex.quote(uri)} --out {name} --final"
            console.say(f"{last} is finished: there is nothing left to do\n  {what}")
            return 0
        console.say(f"{folder} holds a run that is finished; what it chose is trained on everything that has a label")
    else:
        with followed(console, folder, again):
            train_pictures(wish, folder, started=STARTED, resume=flags.resume, listeners=[console], checks=flags.checks)
    if flags.final:
        try:
            refit(folder, folder / FOLDER, resume=True, listeners=[console], checks=flags.checks)
        except (KeyboardInterrupt, Stopped):
            console.say(f"stopped; {folder} is finished, its refit is not\n  go on with: {again}")
            raise
        finally:
            console.close()
        console.say(f"refitted on everything that has a label: {folder / FOLDER / 'model'}")
    return 0


def _refuse(flags: TrainOptions, names: Sequence[str], why: str, instead: str) -> None:
    """Refuse options that the other form of the command has.

    Raises:
        UserError: one of them is given.
    """
    given = next((name for name in names if getattr(flags, name)), None)
    if given is not None:
        raise UserError(f"--{given.replace('_', '-')} {why}\n  {instead}")


def _folder_for(uri: str, resume: bool) -> Path:
    """Return runs/PHOTOS, numbered as `numbered` does, for pictures by their folder's name or their scheme."""
    path, _, _ = uri.partition("?")
    name = re.sub(r"[^\w.-]+", "-", Path(path.rstrip("/")).stem).strip(".-") or "photos"
    return numbered(Path("runs") / name, resume)


def _say_what_is_shorter(console: Console, asked: Asked[TrainOptions]) -> None:
    """Print what chooses the settings for pictures that were named without a recipe."""
    if not asked.name:
        short = shlex.join(["fixres", "train", asked.overrides["data.uri"]])
        console.say(f"these are the defaults; network, size and rate are chosen for the pictures by\n  {short}")


@contextmanager
def followed(console: Console, folder: Path, again: str = "") -> Iterator[None]:
    """Where a run is stopped, print the command that resumes it; else write its page and say what can be typed next.

    `again` is that command, where it is not that of the recipe in the folder.
    """
    name = shlex.quote(str(folder))
    try:
        yield
    except (KeyboardInterrupt, Stopped):
        recipe = shlex.quote(str(folder / "recipe.yaml"))
        has_product = (folder / "model" / "config.json").is_file()
        best = f"; the best so far can be used: fixres predict {name} PICTURE" if has_product else ""
        console.say(f"stopped{best}\n  go on with: {again or f'fixres train {recipe} --out {name} --resume'}")
        raise
    finally:
        console.close()
    if started_rank() == 0:
        from fixres.reporting.page import write_report

        page = write_report([folder], folder / "report.html")
        console.say(f"run folder: {folder}\nreport: {page}\n  fixres eval {name}\n  fixres predict {name} PICTURE")


def default_folder(name: str, recipe: Recipe, resume: bool) -> Path:
    """Return runs/RECIPE-MODEL-SIZE, numbered as `numbered` does."""
    words = [Path(name).stem or "run", recipe.model.name, str(recipe.train.size)]
    return numbered(Path("runs") / "-".join(words), resume)


def numbered(first: Path, resume: bool = False) -> Path:
    """Return a folder, with a number appended while a run is there; to resume, the newest of these."""
    number, newest, folder = 2, first, first
    while folder.exists():
        newest, folder = folder, first.with_name(f"{first.name}-{number}")
        number += 1
    return newest if resume else folder


def run_seeds(asked: Asked[TrainOptions], folder: Path, seeds: Sequence[int], words: Sequence[str] = ()) -> None:
    """Run a recipe once for every seed, into FOLDER/seed-N, and put the runs side by side.

    Args:
        asked: the recipe, whose own seed gives way; resume goes for every seed: finished ones stay as they are, missing
            ones begin.
        folder: study.json, and for `train` report.html, are written into it.
        seeds: in the order they run.
        words: of `fixres train`, to be repeated when it is interrupted.
    """
    from fixres.experiments.seeds import summarise
    from fixres.training.run import run_recipe

    flags, is_main = asked.options, started_rank() == 0
    quiet = flags.quiet or not is_main
    console = Console(quiet)
    runs = [folder / f"seed-{seed}" for seed in seeds]
    for seed, run in zip(seeds, runs, strict=True):
        console.say(f"seed {seed}")
        listener = Console(quiet, flags.verbose)
        try:
            recipe = asked.recipe.model_copy(update={"seed": seed})
            run_recipe(recipe, run, resume=flags.resume, extend=flags.extend, listeners=[listener], checks=flags.checks)
        except (KeyboardInterrupt, Stopped):
            if words:
                again = [word for word in words if word != "--resume"]
                again += [] if flags.out else ["--out", str(folder)]
                console.say(f"stopped; go on with\n  fixres train {shlex.join(again)} --resume")
            raise
        finally:
            listener.close()
    if not is_main:
        return
    tell(console, summarise(runs), folder / "study.json")
    if words:
        from fixres.reporting.page import write_report

        console.say(f"runs: {folder}\nreport: {write_report(runs, folder / 'report.html')}")


def tell(console: Console, found: Study, out: Path | None) -> None:
    """Print the table of a study and write it as JSON."""
    from fixres.io.files import write_text

    console.table(*study_table(found))
    if out is not None:
        write_text(out, json.dumps(found.as_dict(), indent=2) + "\n")


def count_seeds(text: str, first: int) -> list[int]:
    """Return the seeds of `--seeds 3` (as many from `first` on) or `--seeds 0,1,5` (these; `5,` is the one).

    Raises:
        UserError: no such numbers, none at all, or one twice.
    """
    if "," not in text:
        if not text.strip().isdecimal() or int(text) == 0:
            raise UserError(f"--seeds {text}: give how many (--seeds 3), or which (--seeds 0,1,2; one: --seeds 2,)")
        return list(range(first, first + int(text)))
    return listed_seeds(text)


def listed_seeds(text: str) -> list[int]:
    """Return the seeds of `--seeds 0,1,2`.

    Raises:
        UserError: what is no number, or a seed twice.
    """
    try:
        seeds = [int(part) for part in text.removesuffix(",").split(",")]
    except ValueError:
        raise UserError(f"--seeds {text or '(nothing)'}: give numbers, --seeds 0,1,2") from None
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds {text}: a seed is named twice")
    return seeds
