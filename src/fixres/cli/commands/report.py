"""`fixres report`: one page about one run or several, and its content for other programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fixres.cli.parse import Positional, parse_flags
from fixres.reporting.run_record import require_run


@dataclass(frozen=True)
class ReportFlags:
    """Flags of `fixres report`."""

    runs: Annotated[tuple[Path, ...], Positional("RUNS")]
    """Run folders."""
    out: Path | None = None
    """The page; report.html in the first run folder when left out."""
    png: Path | None = None
    """Folder for every chart and every sheet of pictures as PNG."""
    json: Path | None = None
    """Write the content of the page to this file; - for stdout."""


def report(words: Sequence[str]) -> int:
    """`fixres report RUN... [--out FILE.html] [--png DIR] [--json FILE]`."""
    flags = parse_flags(words, ReportFlags, "fixres report", "One self-contained HTML page about one or more runs.")
    for run in flags.runs:
        require_run(run)
    from fixres.cli.console import Console
    from fixres.evaluation.per_image_table import require_writable
    from fixres.reporting.page import read_report
    from fixres.reporting.png import require_folder

    found = read_report(flags.runs)
    out = flags.out or flags.runs[0] / "report.html"
    to_stdout = flags.json == Path("-")
    for path in (out, None if to_stdout else flags.json):
        if path is not None:
            require_writable(path)
    if flags.png is not None:
        require_folder(flags.png)
    console = Console()
    console.say(str(found.write_html(out)))
    if to_stdout:
        sys.stdout.write(found.to_json())
    elif flags.json is not None:
        console.say(str(found.write_json(flags.json)))
    if flags.png is not None:
        console.say(f"{len(found.write_png(flags.png))} pictures in {flags.png}")
    return 0
