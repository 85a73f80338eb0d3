"""`fixres bench`: speed against what people use today, side by side on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fixres.cli.commands.common import refuse_folder, write_answer
from fixres.cli.parse import Positional, parse_flags
from fixres.errors import UserError, did_you_mean
from fixres.experiments.questions import EvalBench, FixBench, LoaderBench, TrainBench

if TYPE_CHECKING:
    from fixres.cli.console import Console

_DEFAULT_IMAGES = 300


@dataclass(frozen=True, kw_only=True)
class LoaderFlags(LoaderBench):
    """Flags of `fixres bench loader`."""

    json: Path | None = None
    """Write the result to this file; - for stdout."""


@dataclass(frozen=True, kw_only=True)
class TrainFlags(TrainBench):
    """Flags of `fixres bench train`."""

    json: Path | None = None
    """Write the result to this file; - for stdout."""


def bench(words: Sequence[str]) -> int:
    """`fixres bench loader|train|fix|eval [...]`."""

    parts = {"loader": _loader, "train": _train, "fix": bench_fix, "eval": bench_eval}
    if words and words[0] in parts:
        return parts[words[0]](words[1:])
    if set(words[:1]) & {"-h", "--help"}:
        return _loader(["--help"])
    given = f"'{words[0]}' cannot be measured{did_you_mean(words[0], parts)}" if words else "nothing to measure"
    raise UserError(
        f"{given}\n  fixres bench loader [--data URI] [--vs torchvision] [--eval] [--json FILE]\n"
        "  fixres bench train [--model NAME] [--size N] [--vs timm,torch] [--json FILE]\n"
        "  fixres bench fix RUN [RUN ...] --size N [--vs v1,v2] [--json FILE]\n"
        "  fixres bench eval [CHECKPOINT] [--sizes 128,224] [--backends torch,openvino] [--json FILE]"
    )


def _train(words: Sequence[str]) -> int:
    flags = parse_flags(words, TrainFlags, "fixres bench train", "Pictures trained per second, side by side, on a CPU.")
    from fixres.cli.console import Console
    from fixres.experiments.bench.train_speed import bench_train

    refuse_folder(flags.json)
    console = Console()

    with tempfile.TemporaryDirectory() as folder, closing(console):
        answer = bench_train(flags, Path(folder), console.bar("measuring"))
    rows = []
    for name, side in answer["sides"].items():
        words = [name, f"{side['images_per_second']:.1f}", f"{side['lowest']:.1f} to {side['highest']:.1f}"]
        words += (
            [f"{side['ratio']:.2f}", f"{side['ratio_lowest']:.2f} to {side['ratio_highest']:.2f}"]
            if ("ratio" in side)
            else ["", ""]
        )
        rows.append(words)
    title = f"training {flags.model} at {flags.size} px, batch {flags.batch_size}, {flags.workers} workers, "
    title += f"{answer['threads']} threads, median of {flags.repeat} turns of {flags.steps} steps"
    console.table(title, ["", "img/s", "range", "ours / it", "range"], rows)
    for name, side in answer["sides"].items():
        if "cpu_ratio" in side:
            spread = f"{side['cpu_ratio_lowest']:.2f} to {side['cpu_ratio_highest']:.2f}"
            console.say(
                f"in processor time, which other work disturbs less: {side['cpu_ratio']:.2f} x {name} ({spread})"
            )
    ms = answer["step_milliseconds"]
    console.say(
        f"a step of ours takes {ms['step']:.0f} ms: {ms['data']:.1f} for the batch, {ms['model']:.0f} for forward, "
        f"backward and optimizer, {ms['host']:.1f} for all else ({100 * answer['host_ratio']:.1f} % of the update)"
    )
    write_answer(flags.json, answer)
    return 0


def _loader(words: Sequence[str]) -> int:
    flags = parse_flags(words, LoaderFlags, "fixres bench loader", "Pictures read per second, side by side.")
    from fixres.cli.console import Console
    from fixres.experiments.bench.loader_speed import bench_loader, make_photographs

    refuse_folder(flags.json)
    console = Console()

    with tempfile.TemporaryDirectory() as folder, closing(console):
        if not flags.data:
            num = flags.images or _DEFAULT_IMAGES
            console.say(f"making {num} pictures")
            make_photographs(Path(folder), num)
        answer = bench_loader(replace(flags, data=flags.data or f"folder:{folder}"), console.bar("measuring"))
    if not flags.data:
        answer["data"] = "generated"
    _print(console, answer)
    write_answer(flags.json, answer)
    return 0


def _print(console: Console, answer: Mapping[str, Any]) -> None:
    rows = []
    for row in answer["results"]:
        for name, side in row["sides"].items():
            words = [name, str(row["workers"]), f"{side['images_per_second']:.0f}"]
            words.append(f"{side['lowest']:.0f} to {side['highest']:.0f}")
            has_ratio = name != "ours"
            words.append(f"{side['ratio']:.2f}" if has_ratio else "")
            words.append(f"{side['ratio_lowest']:.2f} to {side['ratio_highest']:.2f}" if has_ratio else "")
            rows.append(words)
    title = f"{answer['path']}, {answer['n']} pictures at {answer['size']} px, median of {answer['repeats']} passes"
    console.table(title, ["", "workers", "img/s", "range", "ours / it", "range"], rows)
    if "raw_decode_full" in answer:
        half = answer["raw_decode_half"]
        console.say(f"decoding alone: {answer['raw_decode_full']:.0f} a second in full, {half:.0f} at half the sides")
    if "within_one_level" in answer:
        console.say(f"{100 * answer['within_one_level']:.3f} % of the values within 1 level of torchvision's")
    for row in answer["results"]:
        if row["sides"]["ours"]["worker_mb"]:
            memory = ", ".join(f"{name} {side['worker_mb']:.0f} MB" for name, side in row["sides"].items())
            console.say(f"memory of each of {row['workers']} workers (PSS): {memory}")


_DEFAULT_EVAL_IMAGES = 768


@dataclass(frozen=True, kw_only=True)
class EvalBenchFlags(EvalBench):
    """Flags of `fixres bench eval`."""

    checkpoint: Annotated[str, Positional("CHECKPOINT")] = "random:tf_efficientnet_lite0"
    """Any checkpoint, or random:NAME for an architecture with random weights."""
    json: Path | None = None
    """Write the result to this file; - for stdout."""


def bench_eval(words: Sequence[str]) -> int:
    """`fixres bench eval [CHECKPOINT] [--sizes 128,224] [--backends torch,openvino]`."""
    flags = parse_flags(words, EvalBenchFlags, "fixres bench eval", "Pictures evaluated per second, side by side.")
    from fixres.cli.console import Console
    from fixres.experiments.bench.eval_speed import bench_eval as measure
    from fixres.experiments.bench.eval_speed import open_network
    from fixres.experiments.bench.loader_speed import make_photographs

    refuse_folder(flags.json)
    console = Console()

    product = open_network(flags.checkpoint)
    with tempfile.TemporaryDirectory() as folder, closing(console):
        if not flags.data:
            make_photographs(Path(folder), flags.images or _DEFAULT_EVAL_IMAGES)
        answer = measure(replace(flags, data=flags.data or folder), product, console.bar("measuring"))
    rows, agreeing = [], []
    for row in answer["results"]:
        for name, side in row["sides"].items():
            line = [name, str(row["size"]), f"{side['images_per_second']:.1f}", f"{side['startup_seconds']:.1f}"]
            if "ratio" in side:
                line += [f"{side['ratio']:.2f}", f"{side['ratio_lowest']:.2f} to {side['ratio_highest']:.2f}"]
                line.append(f"{side['cpu_ratio']:.2f}")
                agreeing.append(f"{name} at {row['size']} px {100 * side['same_top1']:.2f} %")
            rows.append([*line, *[""] * (7 - len(line))])
    title = (
        f"{answer['model']}, {answer['n']} pictures, {answer['threads']} threads, median of {answer['repeats']} passes"
    )
    console.table(title, ["", "size", "img/s", "start s", "ours / timm", "range", "by cpu"], rows)
    if agreeing:
        console.say(f"pictures with timm's top-1: {', '.join(agreeing)}")
    write_answer(flags.json, answer)
    return 0


@dataclass(frozen=True, kw_only=True)
class FixBenchFlags(FixBench):
    """Flags of `fixres bench fix`."""

    checkpoints: Annotated[tuple[str, ...], Positional("CHECKPOINTS")]
    out: Path | None = None
    """Folder that keeps the run of every fix; left out: none is kept."""
    json: Path | None = None
    """Write the result to this file; - for stdout."""


def bench_fix(words: Sequence[str]) -> int:
    """`fixres bench fix RUN [RUN ...] --size N [--vs v2] [--out DIR] [--json FILE]`."""
    title = "Seconds and accuracy of a fix by the cached solver, beside the published recipes."
    flags = parse_flags(words, FixBenchFlags, "fixres bench fix", title)
    from fixres.cli.console import Console
    from fixres.experiments.bench.fix_speed import CACHED
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

    with nullcontext(flags.out) if flags.out else tempfile.TemporaryDirectory() as folder, closing(console):
        answer = measure(flags, Path(folder), [tell])
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
