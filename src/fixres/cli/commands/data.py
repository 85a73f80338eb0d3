"""`fixres data ...`: what a collection is worth before it is trained on, and bringing collections in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar

from pydantic import Field

from fixres.cli.commands import data_write
from fixres.cli.commands.common import interrupted_where_nothing_is_kept, open_product, refuse_folder
from fixres.cli.commands.data_write import Uri
from fixres.cli.main import overview
from fixres.cli.parse import Positional, parse_flags
from fixres.config.choices import Count
from fixres.config.stage import Positive
from fixres.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from fixres.checkpoints.product import Product
    from fixres.cli.console import Console
    from fixres.config.recipe import Data
    from fixres.data.inspect.check_report import Report
    from fixres.data.inspect.statistics import Statistics

T = TypeVar("T", bound="Report | Statistics")


class _Sub(NamedTuple):
    """A sub-command: its body, called with its words and the line of help, and that line."""

    run: Callable[[Sequence[str], str], int]
    summary: str


def data(words: Sequence[str]) -> int:
    """`fixres data check|stats|preview|split|pack|prepare|download ...`."""
    name, *rest = words or ["--help"]
    if name in ("-h", "--help", "help"):
        if rest and rest[0] in _SUBCOMMANDS:
            return data([rest[0], "--help"])
        about = "Look at a collection before training on it, and bring collections in."
        hint = "'fixres data SUBCOMMAND --help' explains one. URI is a folder, or SCHEME:BODY as for data.uri."
        summaries = {part: sub.summary for part, sub in _SUBCOMMANDS.items()}
        sys.stdout.write(overview("fixres data SUBCOMMAND [...]", about, summaries, hint))
        return 0
    if name not in _SUBCOMMANDS:
        hint = did_you_mean(name, _SUBCOMMANDS)
        raise UserError(f"fixres data has no '{name}'{hint}\n  it has {', '.join(_SUBCOMMANDS)}")
    sub = _SUBCOMMANDS[name]
    return sub.run(rest, f"{sub.summary}.")


@dataclass(frozen=True)
class CheckFlags:
    """Flags of `fixres data check`."""

    uri: Uri
    """Collection: a folder, or SCHEME:BODY as for data.uri."""
    sizes: tuple[Positive, ...] = ()
    """Test sizes in pixels; pictures that are smaller are counted."""
    train_size: Positive | None = None
    """Train size in pixels; the same."""
    crop_ratio: Annotated[float, Field(gt=0, le=1)] = 0.875
    """Test-time crop of which the loss of pixels is computed."""
    labels: str = ""
    """Checkpoint with whose features labels are compared; those that pictures like them contradict are listed."""
    workers: Count | None = None
    """Reading processes; one per core when left out."""
    json: Path | None = None
    """Write every occurrence to this file; - for stdout, in place of the table."""
    quiet: bool = False
    """No progress."""


def check(words: Sequence[str], summary: str) -> int:
    """`fixres data check URI [--json FILE] [--sizes 128,224]`: 0 when nothing or only warnings were found, else 2."""
    flags = parse_flags(words, CheckFlags, "fixres data check", summary)
    from fixres.data.inspect.check import check as look

    def both(data: Data, workers: int, console: Console) -> Report:
        product = open_product(console, flags.labels, needs_head=False) if flags.labels else None
        report = look(data, workers, flags.sizes, flags.crop_ratio, flags.train_size, console.bar("checking"))
        if product is not None and "layout" not in report.findings:
            _doubt_labels(report, product, data, workers, console)
        return report

    report = _inspect(flags, both)
    errors = report.of("error")
    if errors:
        kinds = ", ".join(f"{len(items)} {kind}" for kind, items in errors.items())
        raise UserError(
            f"{report.uri} has errors: {kinds}\n  repair or remove these files; --json FILE lists all of them"
        )
    return 0


def _doubt_labels(report: Report, product: Product, data: Data, workers: int, console: Console) -> None:
    """Add the pictures whose labels are contradicted to the report, the most suspected first."""
    from fixres.config.recipe import Runtime as RuntimeSettings
    from fixres.data.inspect.check_report import Place
    from fixres.runtime.device import Runtime
    from fixres.training.label_check import how, labels_in_doubt

    console.preprocessing(product.preprocess, product.source)
    runtime = Runtime(RuntimeSettings())
    preprocess = product.preprocess
    data = data.model_copy(update={"exif": preprocess.exif, "alpha": preprocess.alpha})
    try:
        with runtime.stop, interrupted_where_nothing_is_kept():
            found = labels_in_doubt(product, data, runtime, workers, console.bar("comparing labels"))
    except UserError as error:
        # What was found before is worth its minutes.
        report.remarks.append(f"labels were not compared: {str(error).partition(chr(10))[0]}")
        return
    report.remarks.append(how(product))
    for one in found:
        seen = f"labelled {one.label} (p {one.probability:.2f}), looks like {one.other} (p {one.other_probability:.2f})"
        report.add("suspected label", seen, Place(one.split, one.path, one.label))


@dataclass(frozen=True)
class StatsFlags:
    """Flags of `fixres data stats`."""

    uri: Uri
    """Collection: a folder, or SCHEME:BODY as for data.uri."""
    size: Positive = 64
    """Side in pixels of the centre crops that mean and std are taken over."""
    workers: Count | None = None
    """Reading processes; one per core when left out."""
    json: Path | None = None
    """Write everything to this file; - for stdout, in place of the tables."""
    quiet: bool = False
    """No progress."""


def stats(words: Sequence[str], summary: str) -> int:
    """`fixres data stats URI [--json FILE] [--size 64]`."""
    flags = parse_flags(words, StatsFlags, "fixres data stats", summary)
    from fixres.data.inspect.statistics import statistics

    _inspect(flags, lambda data, workers, console: statistics(data, workers, flags.size, console.bar("reading")))
    return 0


def _inspect(flags: CheckFlags | StatsFlags, look: Callable[[Data, int, Console], T]) -> T:
    """Return what `look` finds with so many workers, once it is printed, or its JSON in its place, and written."""
    from fixres.cli.console import Console
    from fixres.config.recipe import Data
    from fixres.io.files import write_text
    from fixres.runtime.cpus import resolve_workers

    refuse_folder(flags.json)
    workers = resolve_workers("auto" if flags.workers is None else flags.workers)
    with closing(Console(flags.quiet)) as console:
        found = look(Data(uri=flags.uri), workers, console)
    to_stdout = str(flags.json) == "-"
    sys.stdout.write(found.as_json() if to_stdout else found.as_text())
    if flags.json is not None and not to_stdout:
        write_text(flags.json, found.as_json())
    return found


@dataclass(frozen=True)
class PreviewFlags:
    """Flags of `fixres data preview`."""

    out: Path
    """The picture: a .png file."""
    uri: Annotated[str, Positional("URI")] = ""
    """Collection; the recipe's when left out."""
    recipe: str = ""
    """Recipe whose training is shown, a shipped name or a YAML file; none: the defaults."""
    sizes: tuple[Positive, ...] = ()
    """Test sizes in pixels; the recipe's when left out."""
    count: Positive = 8
    """Pictures, the classes in turn."""
    views: Positive = 4
    """Training views of each: those of the first epochs."""
    seed: int | None = None
    """Seed in place of the recipe's."""
    quiet: bool = False
    """Print nothing."""


def preview(words: Sequence[str], summary: str) -> int:
    """`fixres data preview [URI] --out FILE.png [--recipe RECIPE] [--sizes 64,96]`."""
    flags = parse_flags(words, PreviewFlags, "fixres data preview", summary)
    if flags.out.suffix.lower() != ".png" or flags.out.is_dir():
        raise UserError(f"{flags.out}: the sheet is a PNG\n  --out {flags.out.with_suffix('.png')}")
    from fixres.cli.console import Console
    from fixres.config.loading import load
    from fixres.io.files import write_with
    from fixres.training.preview import preview as draw

    given = {"data.uri": flags.uri or None, "seed": flags.seed}
    overrides = {key: value for key, value in given.items() if value is not None}
    sheet = draw(load(flags.recipe or None, overrides, require_data=True), flags.sizes, flags.count, flags.views)
    write_with(flags.out, lambda part: sheet.image.save(part, "PNG"))
    console = Console(flags.quiet)
    for note in sheet.notes:
        console.say(note)
    sys.stdout.write(f"{flags.out}\n")
    return 0


_SUBCOMMANDS = {
    "check": _Sub(check, "Decode every picture: damage, wrong types, duplicates, leaks between splits, odd shapes"),
    "stats": _Sub(stats, "Count classes and sizes, measure mean and std, and say what follows for a recipe"),
    "preview": _Sub(preview, "Draw what the network sees in training and at every test size"),
    "split": _Sub(data_write.split, "Write a stratified split, groups kept together, as a table for csv:"),
    "pack": _Sub(data_write.pack, "Write a collection as tar shards with an index, for wds:"),
    "prepare": _Sub(data_write.prepare, "Turn the official files of a data set into a folder collection"),
    "download": _Sub(data_write.download, "Fetch the official files of a data set that has a public address"),
}
