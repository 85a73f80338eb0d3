"""One measurement, in a process of its own that `benchmarks.gpu.run` starts.

An answer has "figures", which the summary shows, and whatever else is worth keeping.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import GPU, TOY, Scale, measurements
from fixres.cli.main import main as fixres
from fixres.errors import UserError
from fixres.io.files import write_text
from fixres.runtime.cpus import usable_cpus
from fixres.runtime.run_folder import read_events

GIB = 2**30


def make_pictures(scale: Scale, work: Path, own: Path) -> dict[str, Any]:
    """Make the JPEGs all others read, put them in place when all are there, and say what machine this is.

    Raises:
        UserError: there is no such device.
    """
    import torch

    from fixres.experiments.bench.loader_speed import make_photographs

    device: dict[str, Any] = {"device": "cpu", "torch": torch.__version__, "cpus": usable_cpus()}
    if scale.device == "cuda":
        if not torch.cuda.is_available():
            raise UserError("there is no NVIDIA GPU here\n  benchmarks/gpu.sh --toy tries every path on the CPU")
        properties = torch.cuda.get_device_properties(0)
        device |= {"device": properties.name, "memory_gib": round(properties.total_memory / GIB, 1)}
        device |= {"cuda": torch.version.cuda}
    make_photographs(own / "photos", scale.photographs)
    for made in sorted((own / "photos" / "train").rglob("*.jpg")):
        for copy in range(1, scale.copies):
            shutil.copyfile(made, made.with_name(f"{made.stem}-{copy}.jpg"))
    shutil.rmtree(work / "photos", ignore_errors=True)
    (own / "photos").replace(work / "photos")
    device["python"] = platform.python_version()
    return {"figures": {"note": f"{scale.num_files} JPEGs; {device['device']}, {device['cpus']} CPUs"}, **device}


def train(scale: Scale, work: Path, own: Path, *, source: str, size: int, is_compiled: bool) -> dict[str, Any]:
    """Train as `fixres train` does."""
    from benchmarks.gpu.training import measure_training

    # Drawn larger than the crop, as photographs are.
    synthetic = f"synthetic:classes=2,images={scale.num_files},size={round(size / 0.875)}"
    uri = synthetic if source == "synthetic" else f"folder:{work / 'photos'}"
    return measure_training(scale, uri, size, is_compiled, _workers(scale), own / "run")


def evaluate(scale: Scale, work: Path, own: Path) -> dict[str, Any]:
    """Evaluate with `fixres bench eval`."""
    sizes = ",".join(str(size) for size in dict.fromkeys(scale.sizes))
    words = [f"random:{scale.network}", "--data", f"folder:{work / 'photos'}", "--sizes", sizes, "--vs", "none"]
    words += ["--device", scale.device, "--batch-size", str(scale.batch_size), "--repeat", str(scale.repeat)]
    answer = _bench("eval", [*words, "--workers", str(_workers(scale))], own)
    rates = {str(row["size"]): row["sides"]["torch"]["images_per_second"] for row in answer["results"]}
    first, *others = rates.items()
    note = ", ".join([f"at {first[0]} px", *(f"{rate:.0f} at {size} px" for size, rate in others)])
    return {"figures": {"images_per_second": first[1], "note": f"{note}; reading included"}, "bench": answer}


def read(scale: Scale, work: Path, own: Path) -> dict[str, Any]:
    """Read training pictures on all cores with `fixres bench loader`."""
    words = ["--data", f"folder:{work / 'photos'}", "--size", str(scale.sizes[0]), "--workers", str(_workers(scale))]
    words += ["--batch-size", str(min(32, scale.batch_size)), "--repeat", str(scale.repeat)]
    answer = _bench("loader", words, own)
    (row,) = answer["results"]
    theirs = row["sides"]["torchvision"]["images_per_second"]
    note = f"{row['workers']} workers; torchvision {theirs:.0f}"
    if "raw_decode_full" in answer:
        note += f"; decoding alone on one core {answer['raw_decode_full']:.0f}"
    return {"figures": {"images_per_second": row["sides"]["ours"]["images_per_second"], "note": note}, "bench": answer}


def study(scale: Scale, work: Path, own: Path) -> dict[str, Any]:
    """Train small from random weights, fix by the cached solver, compare.

    Raises:
        UserError: the run was refused.
    """
    small, large = scale.study_sizes
    words = ["--data.uri", scale.study_pictures, "--data.workers", str(_workers(scale))]
    words += ["--model.name", scale.study_network, "--train.size", str(small), "--fix.size", str(large)]
    words += ["--train.epochs", str(scale.study_epochs), "--train.batch_size", str(scale.batch_size)]
    words += ["--fix.solver", "cached", "--evaluation.sizes", f"{small},{large}"]
    words += ["--evaluation.batch_size", str(scale.batch_size)]
    words += ["--runtime.device", scale.device, "--output.tracker", "none", "--out", str(own / "run")]
    if fixres(["train", *words]):
        raise UserError("fixres train was refused")
    events = read_events(own / "run")
    solver = next(event["solver_seconds"] for event in events if event["event"] == "fix")
    solved = next(event for event in events if event["event"] == "solved")
    comparison = next(event for event in events if event["event"] == "comparison")
    rows = {row["label"]: row["top1"] for row in comparison["rows"]}
    epochs = [event for event in events if event["event"] == "epoch"]
    note = f"cached solver {solver:.1f} s, {solved['num_passes']} passes; top-1 "
    note += ", ".join(f"{label} {top1:.1f}" for label, top1 in rows.items())
    return {
        "figures": {"images_per_second": epochs[-1]["fps"], "solver_seconds": solver, "note": note},
        "top1": rows,
        "solved": solved,
        "epochs": epochs,
    }


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    measure.__name__: measure for measure in (make_pictures, train, evaluate, read, study)
}


def _bench(name: str, words: Sequence[str], own: Path) -> dict[str, Any]:
    file = own / "bench.json"
    if fixres(["bench", name, *words, "--json", str(file)]):
        raise UserError(f"fixres bench {name} was refused")
    answer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return answer


def _workers(scale: Scale) -> int:
    return usable_cpus() if scale.workers is None else scale.workers


def main() -> int:
    """Measure what is named and write the answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--answer", type=Path, required=True)
    parser.add_argument("--toy", action="store_true")
    asked = parser.parse_args()
    scale = TOY if asked.toy else GPU
    wanted = next(one for one in measurements(scale) if one.name == asked.name)
    own = asked.work / asked.name
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    # Compiled kernels are shared by all measurements, and kept for another run.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(asked.work / "kernels"))
    try:
        answer = MEASURES[wanted.kind](scale, asked.work, own, **wanted.arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_text(asked.answer, json.dumps(answer))
    shutil.rmtree(own, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
