"""`fixres bench eval`: pictures evaluated per second, beside timm's validate.py."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from fixres.cli.parse import parse_flags

_DEFAULT_IMAGES = 768


@dataclass(frozen=True)
class EvalBenchFlags:
    """Flags of `fixres bench eval`."""

    checkpoint: tyro.conf.Positional[str] = "random:tf_efficientnet_lite0"
    """Any checkpoint, or random:NAME for an architecture with random weights."""
    data: str | None = None
    """Data URI, of which the training split is read; left out: generated JPEGs of about 500 x 375."""
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = (128, 224)
    """Sizes in pixels."""
    images: Annotated[int, Field(ge=1)] | None = None
    """Pictures of a pass; all of --data, or 768 generated ones."""
    backends: tuple[Literal["torch", "openvino", "onnxruntime"], ...] = ("torch",)
    """Who computes on our side, one side for each."""
    vs: tuple[Literal["timm"], ...] = ("timm",)
    """What to run beside."""
    repeat: Annotated[int, Field(ge=1)] = 3
    """Passes of every side."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Pictures per batch of ours; timm's is its default, 256."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Loader processes of ours, one per core when left out; timm's are its default, 4."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the network on every side; 0: one per core."""
    json: Path | None = None
    """Write the result to this file; - for stdout."""


def bench_eval(words: Sequence[str]) -> int:
    """`fixres bench eval [CHECKPOINT] [--sizes 128,224] [--backends torch,openvino]`."""
    flags = parse_flags(words, EvalBenchFlags, "fixres bench eval", "Pictures evaluated per second, side by side.")
    from fixres.cli.commands.answers import refuse_folder, write_answer
    from fixres.cli.console import Console
    from fixres.experiments.bench.eval_speed import EvalBench, open_network
    from fixres.experiments.bench.eval_speed import bench_eval as measure
    from fixres.experiments.bench.loader_speed import make_photographs

    refuse_folder(flags.json)
    console = Console()

    def progress(done: int, total: int) -> None:
        console({"event": "progress", "what": "measuring", "done": done, "total": total})

    product = open_network(flags.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        if flags.data is None:
            make_photographs(Path(folder), flags.images or _DEFAULT_IMAGES)
        bench = EvalBench(
            data=flags.data or folder,
            sizes=flags.sizes,
            backends=flags.backends,
            vs=flags.vs,
            repeats=flags.repeat,
            images=flags.images or 0,
            batch_size=flags.batch_size,
            workers=flags.workers,
            threads=flags.threads,
        )
        try:
            answer = measure(bench, product, progress)
        finally:
            console.close()
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
