"""`fixres bench fix`: seconds and accuracy of the cached solver, beside the published recipes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field

from fixres.cli.parse import parse_flags
from fixres.errors import UserError


@dataclass(frozen=True)
class FixBenchFlags:
    """Flags of `fixres bench fix`."""

    checkpoints: tyro.conf.Positional[tuple[str, ...]]
    """Trained networks on one collection: run folders of several seeds, for example."""
    size: Annotated[int, Field(ge=1)]
    """Size to fix at, in pixels."""
    vs: tuple[Literal["v1", "v2"], ...] = ("v2",)
    """Published recipes to run beside: v1 (test-time preprocessing, 56 epochs), v2 (augmented, 31 epochs)."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs of the published recipes; theirs when left out."""
    lr: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of the published recipes; that of the run's own fix when left out."""
    data: str | None = None
    """Data URI; the product's own when left out."""
    seed: int = 0
    """Seed."""
    out: Path | None = None
    """Folder that keeps the run of every fix; left out: none is kept."""
    json: Path | None = None
    """Write the result to this file; - for stdout."""


def bench_fix(words: Sequence[str]) -> int:
    """`fixres bench fix RUN [RUN ...] --size N [--vs v2] [--out DIR] [--json FILE]`."""
    title = "Seconds and accuracy of a fix by the cached solver, beside the published recipes."
    flags = parse_flags(words, FixBenchFlags, "fixres bench fix", title)
    from fixres.cli.commands.answers import refuse_folder, write_answer
    from fixres.cli.console import Console
    from fixres.experiments.bench.fix_speed import CACHED, FixBench
    from fixres.experiments.bench.fix_speed import bench_fix as measure

    refuse_folder(flags.json)
    if flags.out is not None and flags.out.exists():
        raise UserError(f"{flags.out} exists already\n  give a new folder with --out")
    console = Console()

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "fix_measured":
            console.say(
                f"fix {event['done']} of {event['total']}: {event['checkpoint']}, {event['side']}, "
                f"{event['seconds']:.1f} s"
            )
        elif event["event"] == "progress":
            console(event)

    names = ("checkpoints", "size", "vs", "epochs", "lr", "data", "seed")
    bench = FixBench(**{name: getattr(flags, name) for name in names})
    with nullcontext(flags.out) if flags.out else tempfile.TemporaryDirectory() as folder:
        try:
            answer = measure(bench, Path(folder), [tell])
        finally:
            console.close()
    rows = []
    for name, side in answer["sides"].items():
        line = [name, _listed(side["seconds"], 1)]
        line.append(
            "" if name == CACHED else f"{side['ratio']:.1f} ({side['ratio_lowest']:.1f} to {side['ratio_highest']:.1f})"
        )
        rows.append([*line, *(_listed(top1, 2) for top1 in side["top1"].values())])
    splits = list(answer["num_images"])
    head = [
        "",
        "seconds",
        "it / cached",
        *(f"{split} top-1 %, n = {answer['num_images'][split]:,}" for split in splits),
    ]
    console.table(f"fix at {flags.size} px, {len(flags.checkpoints)} networks", head, rows)
    for name in dict.fromkeys(flags.vs):
        for split, found in answer["sides"][name]["cached_minus_this"].items():
            low, high = found["ci95"]
            console.say(
                f"cached minus {name} on {split}: {found['mean']:+.2f} points (95 % interval over pictures "
                f"{low:+.2f} to {high:+.2f})"
            )
    console.say(f"one forward pass over the training pictures: {_listed(answer['forward_seconds'], 1)} s")
    write_answer(flags.json, answer)
    return 0


def _listed(values: Sequence[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)
