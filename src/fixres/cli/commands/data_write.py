"""The sub-commands of `fixres data` that write: `split`, `pack`, `prepare`, `download`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fixres.cli.parse import Positional, parse_flags
from fixres.config.choices import OnBadImage
from fixres.config.stage import Positive, Share
from fixres.errors import UserError, counted

if TYPE_CHECKING:
    from fixres.cli.console import Console
    from fixres.data.prepare.parts import Progress
    from fixres.data.prepare.writer import Report

Uri = Annotated[str, Positional("URI")]
Name = Annotated[str, Positional("NAME")]


@dataclass(frozen=True)
class SplitFlags:
    """Flags of `fixres data split`."""

    uri: Uri
    """Collection of files: a folder, or SCHEME:BODY as for data.uri."""
    out: Path
    """New table: a .csv or .tsv file."""
    val: Share = 0.2
    """Share of val; 0: none."""
    test: Share = 0.2
    """Share of test; 0: none."""
    seed: int = 0
    """Seed of the split."""
    group: str = ""
    """What stays in one split: a column of the table, elsewhere a regular expression searched in the path."""
    quiet: bool = False
    """Print the URI only."""


def split(words: Sequence[str], summary: str) -> int:
    """`fixres data split URI --out FILE [--val 0.2] [--test 0.2] [--seed 0] [--group COLUMN]`."""
    flags = parse_flags(words, SplitFlags, "fixres data split", summary)
    from fixres.cli.console import Console
    from fixres.data.split_table import write_split_table

    table = write_split_table(flags.uri, flags.out, val=flags.val, test=flags.test, seed=flags.seed, group=flags.group)
    console = Console(flags.quiet)
    for name, counts in table.counts.items():
        groups = f" in {counted(table.groups[name], 'group')}" if table.groups else ""
        console.say(
            f"{name}: {counted(sum(counts.values()), 'picture')} of {counted(len(counts), 'class', 'classes')}{groups}"
        )
    for note in table.notes:
        console.say(f"note: {note}")
    sys.stdout.write(f"{table.uri}\n")
    return 0


@dataclass(frozen=True)
class PackFlags:
    """Flags of `fixres data pack`."""

    uri: Uri
    """Collection: a folder, or SCHEME:BODY as for data.uri."""
    out: Path
    """Folder for the shards, their index and the class names."""
    images_per_shard: Positive = 1000
    """Pictures in a tar file."""
    max_side: Positive | None = None
    """Longest side in pixels: larger pictures are made smaller. Left out, files are copied byte for byte."""
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """JPEG quality of pictures that are made smaller."""
    on_bad_image: OnBadImage = "error"
    """What an unreadable picture does; skipped ones are counted and listed, never replaced."""
    quiet: bool = False
    """Print the paths only."""


def pack(words: Sequence[str], summary: str) -> int:
    """`fixres data pack URI --out DIR [--images-per-shard 1000] [--max-side N] [--on-bad-image skip]`."""
    flags = parse_flags(words, PackFlags, "fixres data pack", summary)
    from fixres.cli.console import Console
    from fixres.config.recipe import Data
    from fixres.data.collections import open_collection
    from fixres.data.pack import Packing
    from fixres.data.pack import pack as write_shards

    console = Console(flags.quiet)
    # Shards hold the splits that are there; a holdout is carved out when they are trained on.
    collection = open_collection(Data(uri=flags.uri, holdout=0))
    for note in collection.notes:
        console.say(note)
    bad: list[str] = []
    with closing(console):
        paths = write_shards(
            collection,
            flags.out,
            Packing(flags.images_per_shard, flags.max_side, flags.quality, flags.on_bad_image),
            bad,
            console.bar("packing"),
        )
    if bad:
        console.warn(f"{counted(len(bad), 'picture')} left out because they cannot be read: {', '.join(bad)}")
    sys.stdout.write("".join(f"{path}\n" for path in paths))
    return 0


@dataclass(frozen=True)
class PrepareFlags:
    """Flags of `fixres data prepare`."""

    from_: Path | None = None
    """Folder that holds the official files, or one of them; they are only read."""
    out: Path | None = None
    """Folder to make; it appears when everything is in it."""
    name: Name = ""
    """Data set; none: list them."""
    allow_partial: bool = False
    """Accept missing pictures and files that are not the published ones, and say so."""
    split_inside: Literal["auto", "yes", "no"] = "auto"
    """mini-ImageNet: divide inside the classes; auto: where its tables share no classes."""
    seed: int = 0
    """Seed of that division."""
    keep_background: bool = False
    """Caltech: keep the class of clutter."""
    quiet: bool = False
    """Print the path only."""


def prepare(words: Sequence[str], summary: str) -> int:
    """`fixres data prepare NAME --from DIR --out DIR`; without NAME the list of data sets."""
    flags = parse_flags(words, PrepareFlags, "fixres data prepare", summary)
    from fixres.cli.console import Console
    from fixres.data.prepare.known_sets import find_set
    from fixres.data.prepare.parts import Options
    from fixres.data.prepare.writer import prepare as make

    if not flags.name:
        sys.stdout.write(_list_of_sets())
        return 0
    info = find_set(flags.name)
    if flags.from_ is None or flags.out is None:
        missing = " and ".join(name for name, value in (("--from", flags.from_), ("--out", flags.out)) if value is None)
        raise UserError(f"{missing} is missing\n  fixres data prepare {info.name} --from DIR --out DIR")
    split_inside = {"auto": None, "yes": True, "no": False}[flags.split_inside]
    options = Options(flags.allow_partial, split_inside, flags.seed, flags.keep_background)
    console = Console(flags.quiet)
    with closing(console):
        report = make(flags.name, flags.from_, flags.out, _bar(console), options)
    for line in _in_words(report):
        console.say(line)
    sys.stdout.write(f"{report.out}\n")
    return 0


@dataclass(frozen=True)
class DownloadFlags:
    """Flags of `fixres data download`."""

    out: Path | None = None
    """Folder for the files."""
    name: Name = ""
    """Data set; none: list them."""
    quiet: bool = False
    """Print the paths only."""


def download(words: Sequence[str], summary: str) -> int:
    """`fixres data download NAME --out DIR`; without NAME the list of data sets."""
    flags = parse_flags(words, DownloadFlags, "fixres data download", summary)
    from fixres.cli.console import Console
    from fixres.data.prepare.known_sets import find_set
    from fixres.data.prepare.official_archives import download as fetch

    if not flags.name:
        sys.stdout.write(_list_of_sets())
        return 0
    info = find_set(flags.name)
    if flags.out is None:
        raise UserError(f"--out is missing\n  fixres data download {info.name} --out DIR")
    console = Console(flags.quiet)
    console.say(f"{info.title}: licence {info.license}; {info.page}")
    with closing(console):
        paths = fetch(flags.name, flags.out, _bar(console))
    console.say(f"next: fixres data prepare {info.name} --from {flags.out} --out DIR")
    sys.stdout.write("".join(f"{path}\n" for path in paths))
    return 0


def _list_of_sets() -> str:
    from fixres.data.prepare.known_sets import SETS

    width = max(map(len, SETS))
    lines = []
    for name, entry in SETS.items():
        counts = ", ".join(f"{split or 'all'} {num:,}" for split, num in entry.counts.items())
        how = "download" if entry.can_download else "by hand"
        lines.append(f"{name:<{width}}  {how:<9} {entry.num_classes:>5,} classes  {counts}")
    return "\n".join(lines) + "\n"


def _in_words(report: Report) -> list[str]:
    counts = ", ".join(f"{split or 'all'} {num:,}" for split, num in report.counts.items())
    state = "was there already" if report.was_there else "complete" if report.is_complete else "not complete"
    lines = [f"{report.name}: {report.num_classes:,} classes; pictures: {counts} ({state})"]
    if report.num_resumed:
        lines.append(f"{counted(report.num_resumed, 'picture')} had been written from an interrupted run")
    lines += [f"{name}: {verdict}" for name, verdict in report.checksums.items()]
    return [*lines, *report.notes, f"licence: {report.license}"]


def _bar(console: Console) -> Progress:
    def progress(what: str, done: int, total: int | None) -> None:
        # Bytes come in billions, pictures one by one.
        is_bytes = what.startswith(("checking", "fetching"))
        shift = 20 if is_bytes else 0
        console.progress(f"{what}, MB" if is_bytes else what, done >> shift, (total or done) >> shift)

    return progress
