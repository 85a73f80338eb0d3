"""Commands that use a network: `eval`, `predict`, `report`, `doctor`."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from fixres.commands.opening import open_product
from fixres.errors import UserError
from fixres.parsing import parse_flags

if TYPE_CHECKING:
    from fixres.predict import Prediction


@dataclass(frozen=True)
class EvalFlags:
    """Flags of `fixres eval`."""

    checkpoint: tyro.conf.Positional[str]
    """Run folder, model folder, weights file with --model, or timm: hf-hub: fixres: url: package: and a name."""
    data: str | None = None
    """Data URI; the product's own when left out."""
    split: Literal["train", "holdout", "val", "test", "all"] | None = None
    """Split to measure; the collection's reported one when left out."""
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Sizes in pixels; the product's test size when left out."""
    resize: Literal["shorter", "height", "squash", "pad"] | None = None
    """Resize in place of the product's own."""
    weights: str = "fixed"
    """before_fix: with the tensors a fix moved as they were; raw or ema of a training checkpoint; FILE for timm:."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Pictures per batch; the one the product was measured with when left out."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Loader processes."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What an unreadable picture does."""
    device: Literal["auto", "cpu", "cuda", "npu", "xpu", "mps"] = "auto"
    """Where to compute."""
    model: str | None = None
    """Architecture of a bare weights file."""
    json: Path | None = None
    """Write the result to this file; - for stdout."""
    predictions: Path | None = None
    """Write one CSV row per picture and size to this file."""
    quiet: bool = False
    """Print results only."""


def eval(words: Sequence[str]) -> int:
    """`fixres eval CKPT [--data URI] [--split S] [--sizes 96,128] [--json FILE] [--predictions FILE]`."""
    flags = parse_flags(words, EvalFlags, "fixres eval", "Accuracy of a checkpoint at any list of sizes.")
    from fixres.console import Console, results_table
    from fixres.measure import Request, measure_product, predictions_csv
    from fixres.runlog import write_text

    for path in (flags.json, flags.predictions):
        if path is not None and path.is_dir():
            raise UserError(f"{path} is a folder; give the name of a file")
    console = Console(flags.quiet)
    product = open_product(console, flags.checkpoint, flags.weights, flags.model)
    if flags.resize:
        product = replace(product, preprocess=replace(product.preprocess, resize=flags.resize))
    console.preprocessing(product.preprocess, product.source)
    request = Request(
        data=flags.data,
        split=flags.split,
        sizes=flags.sizes,
        batch_size=flags.batch_size,
        workers=flags.workers,
        on_bad_image=flags.on_bad_image,
        device=flags.device,
    )

    def progress(done: int, total: int) -> None:
        console({"event": "progress", "what": "measuring", "done": done, "total": total})

    try:
        answer, found, split = measure_product(product, request, progress)
    finally:
        console.close()
    title = f"{answer['split']} of {answer['data']}, n = {answer['num_images']:,}, {answer['model']}"
    console.table(title, *results_table(answer["results"]))
    for line in answer.pop("remarks"):
        console.say(line)
    if flags.json is not None:
        text = json.dumps(answer, indent=2) + "\n"
        if str(flags.json) == "-":
            sys.stdout.write(text)
        else:
            write_text(flags.json, text)
    if flags.predictions is not None:
        write_text(flags.predictions, predictions_csv(found, split, product.classes))
    return 0


@dataclass(frozen=True)
class PredictFlags:
    """Flags of `fixres predict`."""

    checkpoint: tyro.conf.Positional[str]
    """Run folder, model folder, weights file with --model, or timm: hf-hub: fixres: url: package: and a name."""
    paths: tyro.conf.Positional[tuple[str, ...]]
    """Pictures, folders of pictures, or patterns."""
    top_k: Annotated[int, Field(ge=1)] = 5
    """Classes to name per picture."""
    size: Annotated[int, Field(ge=1)] | None = None
    """Size in place of the product's test size."""
    format: Literal["table", "json", "jsonl", "csv"] = "table"
    """Form of the output."""
    out: Path | None = None
    """Write here in place of stdout."""
    model: str | None = None
    """Architecture of a bare weights file."""
    weights: str = "fixed"
    """before_fix: with the tensors a fix moved as they were; raw or ema of a training checkpoint; FILE for timm:."""
    quiet: bool = False
    """Print predictions only."""


def predict(words: Sequence[str]) -> int:
    """`fixres predict CKPT PATH... [--top-k 5] [--format table|json|jsonl|csv] [--out FILE]`."""
    flags = parse_flags(
        words, PredictFlags, "fixres predict", "Classify pictures with the product's own preprocessing."
    )
    from fixres.config import Runtime as RuntimeSettings
    from fixres.console import Console
    from fixres.formats import FORMATS
    from fixres.predict import Predictor, find_pictures
    from fixres.runlog import write_text
    from fixres.runtime import Runtime

    if not flags.paths:
        raise UserError("no pictures given\n  fixres predict CKPT PICTURE_OR_FOLDER ...")
    console = Console(flags.quiet)
    product = open_product(console, flags.checkpoint, flags.weights, flags.model)
    if flags.size is not None and flags.size != product.preprocess.size:
        console.warn(f"size {flags.size} differs from the product's test size {product.preprocess.size}")
        product = product.at(flags.size)
    console.preprocessing(product.preprocess, product.source)
    pictures = find_pictures(_expand(flags.paths))
    predictor = Predictor(product, Runtime(RuntimeSettings()), flags.top_k)
    found: list[Prediction] = []
    for prediction in predictor(pictures):
        found.append(prediction)
        console({"event": "progress", "what": "predicting", "done": len(found), "total": len(pictures)})
    console.close()
    text = FORMATS[flags.format](found)
    if flags.out is None:
        sys.stdout.write(text)
    else:
        write_text(flags.out, text)
    failed = [p for p in found if p.error]
    for p in failed:
        console.warn(f"{p.path}: {p.error}")
    return 2 if failed else 0


def _expand(paths: Sequence[str]) -> list[str]:
    found: list[str] = []
    for path in paths:
        matches = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) and not Path(path).exists() else []
        found.extend(matches or [path])
    return found


@dataclass(frozen=True)
class ReportFlags:
    """Flags of `fixres report`."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    out: Path | None = None
    """The page; report.html in the first run folder when left out."""


def report(words: Sequence[str]) -> int:
    """`fixres report RUN... [--out FILE.html]`."""
    flags = parse_flags(words, ReportFlags, "fixres report", "One self-contained HTML page about one or more runs.")
    from fixres.console import Console
    from fixres.report import write_report

    if not flags.runs:
        raise UserError("no run given\n  fixres report RUN [RUN ...] [--out FILE.html]")
    out = flags.out or flags.runs[0] / "report.html"
    Console().say(str(write_report(flags.runs, out)))
    return 0


def doctor(words: Sequence[str]) -> int:
    """`fixres doctor`."""
    from fixres.doctor import DoctorFlags, run_doctor

    return run_doctor(parse_flags(words, DoctorFlags, "fixres doctor", "What this machine has, and what it lacks."))
