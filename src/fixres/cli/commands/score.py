"""The command `score`: accuracy from arrays. It imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fixres.cli.commands.common import write_answer
from fixres.cli.parse import Positional, parse_flags
from fixres.config.stage import Positive
from fixres.errors import UserError


@dataclass(frozen=True)
class ScoreFlags:
    """Flags of `fixres score`."""

    folder: Annotated[Path, Positional("FOLDER")]
    """Folder that extract wrote, or with files named as FixRes published them."""
    name: str | None = None
    """Only this one of several published files: ResNet50 of ResNet50_softmax.npy."""
    version: Literal["v1", "v2"] | None = None
    """Only these of the published files."""
    train: Path | None = None
    """Folder with the training arrays, for the next two."""
    neighbours: Positive | None = None
    """Also the vote of so many nearest training embeddings."""
    linear_probe: bool = False
    """Also a linear classifier trained on the training embeddings."""
    json: Path | None = None
    """Write the results to this file; - for stdout."""


def score(words: Sequence[str]) -> int:
    """`fixres score DIR [--name N] [--version v1|v2] [--train DIR --neighbours K --linear-probe] [--json FILE]`."""
    flags = parse_flags(words, ScoreFlags, "fixres score", "Accuracy from extracted arrays, without PyTorch.")
    from fixres.cli.console import Console
    from fixres.inference.score_arrays import linear_probe, neighbours, open_arrays
    from fixres.inference.score_arrays import score as score_arrays
    from fixres.io.files import require_writable_file

    wants_probe = flags.neighbours is not None or flags.linear_probe
    if wants_probe and flags.train is None:
        raise UserError(
            "--neighbours and --linear-probe learn from training arrays\n  --train DIR, made by extract --split train"
        )
    if flags.train is not None and not wants_probe:
        raise UserError("--train is for --neighbours K or --linear-probe\n  add one of them")
    if flags.json is not None and str(flags.json) != "-":
        require_writable_file(flags.json)
    console = Console()
    results = []
    for arrays in open_arrays(flags.folder, flags.name, flags.version):
        if arrays.softmax is None and wants_probe:
            result: dict[str, Any] = {"name": arrays.title(), "num_images": len(arrays.labels)}
        else:
            result = score_arrays(arrays)
        if flags.train is not None:
            train = open_arrays(flags.train, arrays.name, arrays.variant or None)[0]
            if flags.neighbours is not None:
                result["neighbours"] = neighbours(train, arrays, flags.neighbours)
            if flags.linear_probe:
                result["linear_probe"] = linear_probe(train, arrays)
        results.append(result)
    if "top1" not in results[0]:
        console.say(f"no top-1: {arrays.details['why_no_softmax']}")
    title = f"{flags.folder}, n = {results[0]['num_images']:,}"
    console.table(title, *_table(results))
    write_answer(flags.json, {"folder": str(flags.folder), "results": results})
    return 0


def _table(results: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    from fixres.evaluation.metrics import is_shown, is_uneven

    with_head = "top1" in results[0]
    with_top5 = with_head and any(is_shown("top5", result["num_classes"]) for result in results)
    with_balanced = with_head and any(is_uneven(result["imbalance"]) for result in results)
    probes = [key for key in ("neighbours", "linear_probe") if key in results[0]]
    header = ["", "top-1 %", "95 % interval", *(["balanced %"] if with_balanced else [])]
    header += [*(["top-5 %"] if with_top5 else []), "loss", "ECE"]
    header = header if with_head else [""]
    rows = []
    for result in results:
        if not with_head:
            rows.append([result["name"], *(f"{result[key]['top1']:.2f}" for key in probes)])
            continue
        low, high = result["top1_ci95"]
        row = [result["name"], f"{result['top1']:.2f}", f"{low:.1f} to {high:.1f}"]
        row += [f"{result['balanced_accuracy']:.2f}"] if with_balanced else []
        row += [f"{result['top5']:.2f}" if result["top5"] is not None else "-"] if with_top5 else []
        row += [f"{result['loss']:.3f}", f"{result['ece']:.3f}"]
        rows.append(row + [f"{result[key]['top1']:.2f}" for key in probes])
    names = {"linear_probe": "linear probe %"}
    if "neighbours" in probes:
        names["neighbours"] = f"{results[0]['neighbours']['neighbours']} neighbours %"
    return header + [names[key] for key in probes], rows
