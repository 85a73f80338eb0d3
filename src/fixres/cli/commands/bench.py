"""`fixres bench`: speed against what people use today, side by side on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fixres.cli.commands.common import open_product, refuse_folder, write_answer
from fixres.cli.parse import Positional, parse_flags
from fixres.errors import UserError, did_you_mean
from fixres.experiments.questions import EvalBench, ExportBench, FixBench, LoaderBench, TrainBench

if TYPE_CHECKING:
    from fixres.checkpoints.product import Product
    from fixres.cli.console import Console
    from fixres.inference.export.trace import Captured

_LOADER_IMAGES, _EVAL_IMAGES = 300, 768
"""Pictures made where no data is given."""
_INT8 = "-int8"
"""Behind a format's name: in 8 bits."""


@dataclass(frozen=True, kw_only=True)
class JsonFlag:
    """What every bench offers."""

    json: Path | None = None
    """Write the result to this file; - for stdout."""


@dataclass(frozen=True, kw_only=True)
class LoaderFlags(JsonFlag, LoaderBench):
    """Flags of `fixres bench loader`."""


@dataclass(frozen=True, kw_only=True)
class TrainFlags(JsonFlag, TrainBench):
    """Flags of `fixres bench train`."""


@dataclass(frozen=True, kw_only=True)
class EvalBenchFlags(JsonFlag, EvalBench):
    """Flags of `fixres bench eval`."""

    checkpoint: Annotated[str, Positional("CHECKPOINT")] = "random:tf_efficientnet_lite0"
    """Any checkpoint, or random:NAME for an architecture with random weights."""


@dataclass(frozen=True, kw_only=True)
class FixBenchFlags(JsonFlag, FixBench):
    """Flags of `fixres bench fix`."""

    checkpoints: Annotated[tuple[str, ...], Positional("CHECKPOINTS")]
    out: Path | None = None
    """Folder that keeps the run of every fix; left out: none is kept."""


@dataclass(frozen=True, kw_only=True)
class ExportBenchFlags(JsonFlag, ExportBench):
    """Flags of `fixres bench export`."""

    checkpoint: Annotated[str, Positional("CHECKPOINT")]
    """Any checkpoint: a run folder, for example."""


def bench(words: Sequence[str]) -> int:
    """`fixres bench loader|train|fix|eval|export [...]`."""

    parts: dict[str, tuple[type[JsonFlag], str, Callable[[Any, Console, Path], dict[str, Any]]]] = {
        "loader": (LoaderFlags, "Pictures read per second, side by side.", _loader),
        "train": (TrainFlags, "Pictures trained per second, side by side, on a CPU.", _train),
        "fix": (
            FixBenchFlags,
            "Seconds and accuracy of a fix by the cached solver, beside the published recipes.",
            _fix,
        ),
        "eval": (EvalBenchFlags, "Pictures evaluated per second, side by side.", _eval),
        "export": (ExportBenchFlags, "Accuracy, time and size of every format of `fixres export`.", _export),
    }
    if set(words[:1]) & {"-h", "--help"}:
        words = ["loader", "--help"]
    if words and words[0] in parts:
        cls, description, measure = parts[words[0]]
        flags = parse_flags(words[1:], cls, f"fixres bench {words[0]}", description)
        refuse_folder(flags.json)
        from fixres.cli.console import Console

        console = Console()
        with tempfile.TemporaryDirectory() as folder, closing(console):
            answer = measure(flags, console, Path(folder))
        write_answer(flags.json, answer)
        return 0
    given = f"'{words[0]}' cannot be measured{did_you_mean(words[0], parts)}" if words else "nothing to measure"
    raise UserError(
        f"{given}\n  fixres bench loader [--data URI] [--vs torchvision] [--eval] [--json FILE]\n"
        "  fixres bench train [--model NAME] [--size N] [--vs timm,torch] [--json FILE]\n"
        "  fixres bench fix RUN [RUN ...] --size N [--vs v1,v2] [--json FILE]\n"
        "  fixres bench eval [CHECKPOINT] [--sizes 128,224] [--backends torch,openvino] [--json FILE]\n"
        "  fixres bench export CHECKPOINT [--formats onnx,onnx-int8] [--sizes 128,224] [--json FILE]"
    )


def _train(flags: TrainFlags, console: Console, folder: Path) -> dict[str, Any]:
    from fixres.experiments.bench.train_speed import bench_train

    answer = bench_train(flags, folder, console.bar("measuring"))
    rows = [[name, *_speed(side, 1), *_lead(side)] for name, side in answer["sides"].items()]
    title = f"training {flags.model} at {flags.size} px, batch {flags.batch_size}, {flags.workers} workers, "
    title += f"{answer['threads']} threads, median of {flags.repeat} turns of {flags.steps} steps"
    console.table(title, ["", "img/s", "range", "ours / it", "range"], rows)
    for name, side in answer["sides"].items():
        if "cpu_ratio" in side:
            ratio, spread = _lead(side, "cpu_ratio")
            console.say(f"in processor time, which other work disturbs less: {ratio} x {name} ({spread})")
    ms = answer["step_milliseconds"]
    console.say(
        f"a step of ours takes {ms['step']:.0f} ms: {ms['data']:.1f} for the batch, {ms['model']:.0f} for forward, "
        f"backward and optimizer, {ms['host']:.1f} for all else ({100 * answer['host_ratio']:.1f} % of the update)"
    )
    return answer


def _loader(flags: LoaderFlags, console: Console, folder: Path) -> dict[str, Any]:
    from fixres.experiments.bench.loader_speed import bench_loader, make_photographs

    if not flags.data:
        num = flags.images or _LOADER_IMAGES
        console.say(f"making {num} pictures")
        make_photographs(folder, num)
    answer = bench_loader(replace(flags, data=flags.data or f"folder:{folder}"), console.bar("measuring"))
    if not flags.data:
        answer["data"] = "generated"
    rows = [
        [name, str(row["workers"]), *_speed(side, 0), *_lead(side)]
        for row in answer["results"]
        for name, side in row["sides"].items()
    ]
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
    return answer


def _speed(side: Mapping[str, Any], digits: int) -> list[str]:
    lowest, highest = (f"{side[key]:.{digits}f}" for key in ("lowest", "highest"))
    return [f"{side['images_per_second']:.{digits}f}", f"{lowest} to {highest}"]


def _lead(side: Mapping[str, Any], name: str = "ratio", digits: int = 2) -> list[str]:
    """Return a ratio and its range, empty where a side has none."""
    if name not in side:
        return ["", ""]
    ratio, lowest, highest = (f"{side[key]:.{digits}f}" for key in (name, f"{name}_lowest", f"{name}_highest"))
    return [ratio, f"{lowest} to {highest}"]


def _eval(flags: EvalBenchFlags, console: Console, folder: Path) -> dict[str, Any]:
    from fixres.experiments.bench.eval_speed import bench_eval, open_network
    from fixres.experiments.bench.loader_speed import make_photographs

    product = open_network(flags.checkpoint)
    if not flags.data:
        make_photographs(folder, flags.images or _EVAL_IMAGES)
    answer = bench_eval(replace(flags, data=flags.data or str(folder)), product, console.bar("measuring"))
    rows, agreeing = [], []
    for row in answer["results"]:
        for name, side in row["sides"].items():
            speeds = [f"{side['images_per_second']:.1f}", f"{side['startup_seconds']:.1f}"]
            by_cpu = f"{side['cpu_ratio']:.2f}" if "cpu_ratio" in side else ""
            rows.append([name, str(row["size"]), *speeds, *_lead(side), by_cpu])
            if "same_top1" in side:
                agreeing.append(f"{name} at {row['size']} px {100 * side['same_top1']:.2f} %")
    title = (
        f"{answer['model']}, {answer['n']} pictures, {answer['threads']} threads, median of {answer['repeats']} passes"
    )
    console.table(title, ["", "size", "img/s", "start s", "ours / timm", "range", "by cpu"], rows)
    if agreeing:
        console.say(f"pictures with timm's top-1: {', '.join(agreeing)}")
    return answer


def _export(flags: ExportBenchFlags, console: Console, folder: Path) -> dict[str, Any]:
    from fixres.experiments.bench.export_speed import Written, bench_export
    from fixres.inference.export.export import export, require_possible
    from fixres.inference.export.formats.table import FORMATS, find_format, open_exported
    from fixres.inference.export.trace import capture
    from fixres.inference.requests import ExportRequest

    names = tuple(dict.fromkeys(name for word in flags.formats for name in word.split(",")))
    for name in names:
        find_format(name.removesuffix(_INT8))

    traced: dict[int, Captured] = {}

    def write(product: Product, name: str, threads: int) -> Written:
        size = product.preprocess.size
        is_rounded = name.endswith(_INT8)
        request = ExportRequest(
            out=folder / f"{name}-{size}",
            format=name.removesuffix(_INT8),
            data=flags.data,
            int8=is_rounded,
            calibration=flags.data if is_rounded else None,
            # What 8 bits cost is what the table is for.
            max_drop=100,
        )
        require_possible(request)
        if size not in traced:
            traced[size] = capture(product, softmax=False, normalise=False)
        found = export(product, request, captured=traced[size])
        opened = open_exported(found.path, threads=threads)
        num_bytes = sum(path.stat().st_size for path in found.files if path.suffix not in (".json", ".py"))
        return Written(opened.backend, "int8" if is_rounded else "fp32", num_bytes, opened.run)

    every = [(name, f"{name}{_INT8}") if kind.rounding else (name,) for name, kind in FORMATS.items()]
    asked = replace(flags, formats=names or tuple(chain.from_iterable(every)))
    product = open_product(console, flags.checkpoint)
    answer = bench_export(asked, product, write, lambda text: console.say(f"{text} ..."), console.bar("measuring"))
    _tell_export(console, answer)
    return answer


def _tell_export(console: Console, answer: Mapping[str, Any]) -> None:
    rows, missing = [], []
    results = answer["results"]
    # The product itself is always there.
    batches = [taken["batch_size"] for taken in results[0]["times"]]
    for row in results:
        if "reason" in row:
            missing.append(f"{row['format']} at {row['size']} px is not there: {row['reason']}")
            rows.append([row["format"], "", "", str(row["size"]), *[""] * (3 + len(batches))])
            continue
        minus = ""
        if "minus_product" in row:
            (low, high), difference = row["minus_product"]["ci95"], row["minus_product"]["difference"]
            minus = f"{difference:+.2f} ({low:+.2f} to {high:+.2f})"
        names = [row["format"], row["backend"], row["precision"], str(row["size"])]
        times = [f"{taken['milliseconds']:.2f}" for taken in row["times"]]
        rows.append([*names, f"{row['top1']:.2f}", minus, *times, f"{row['megabytes']:.1f}"])
    title = (
        f"{answer['split']} of {answer['data']}, n = {answer['num_images']:,}, {answer['model']}; milliseconds for a "
        f"picture by its batch, {answer['threads']} threads, median of {answer['repeats']} turns"
    )
    head = ["", "computed by", "precision", "size", "top-1 %", "minus product, 95 % interval"]
    console.table(title, [*head, *(f"ms, batch {num}" for num in batches), "MB"], rows)
    for line in missing:
        console.warn(line)


def _fix(flags: FixBenchFlags, console: Console, folder: Path) -> dict[str, Any]:
    from fixres.experiments.bench.fix_speed import CACHED, bench_fix

    if flags.out is not None and flags.out.exists():
        raise UserError(f"{flags.out} exists already\n  give a new folder with --out")

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "fix_measured":
            console.say(
                f"fix {event['done']} of {event['total']}: {event['checkpoint']}, {event['side']}, "
                f"{event['seconds']:.1f} s"
            )
        elif event["event"] == "progress":
            console(event)

    answer = bench_fix(flags, flags.out or folder, [tell])
    rows = []
    for name, side in answer["sides"].items():
        ratio, spread = _lead(side, digits=1)
        lead = "" if name == CACHED else f"{ratio} ({spread})"
        rows.append([name, _listed(side["seconds"], 1), lead, *(_listed(top1, 2) for top1 in side["top1"].values())])
    counts = answer["num_images"].items()
    head = ["", "seconds", "it / cached", *(f"{split} top-1 %, n = {num:,}" for split, num in counts)]
    console.table(f"fix at {flags.size} px, {len(flags.checkpoints)} networks", head, rows)
    for name in dict.fromkeys(flags.vs):
        for split, found in answer["sides"][name]["cached_minus_this"].items():
            console.say(f"cached minus {name} on {split}: {_in_points(found)}")
    if gain := answer["gain"]:
        parts = [_in_points(gain[part]) for part in ("both", "head", "size")]
        console.say(
            f"cached minus before the fix on {answer['report']}: {parts[0]}\n  the head solved again at the train "
            f"size: {parts[1]}; the size: {parts[2]}"
        )
    console.say(f"one forward pass over the training pictures: {_listed(answer['forward_seconds'], 1)} s")
    return answer


def _in_points(found: Mapping[str, Any]) -> str:
    low, high = found["ci95"]
    return f"{found['mean']:+.2f} points (95 % interval over pictures {low:+.2f} to {high:+.2f})"


def _listed(values: Sequence[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)
