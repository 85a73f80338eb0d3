"""A wall clock: `--minutes 3` is over within 3.3, alone and beside a program that wants both cores.

    python -m benchmarks.own_pictures.clock elpv: --out runs/own/clock --minutes 3 --repeats 3

The neighbour is a plain torch training of ResNet-18 with two threads and the waiting that torch comes with: the worst
that stands on an ordinary desk. Each run writes its own JSON and is skipped where that is there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from torch.nn.functional import cross_entropy

from benchmarks.own_pictures.ours import ON_TIME, timed_command
from fixres.io.files import write_text

BESIDE = ("alone", "beside a training")
_THREADS = 2


def be_a_neighbour(ready: Path) -> None:
    """Train ResNet-18 on noise until ended."""
    torch.set_num_threads(_THREADS)
    model = timm.create_model("resnet18", num_classes=10).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images, labels = torch.randn(32, 3, 96, 96), torch.arange(32) % 10
    parent = os.getppid()
    # Whoever started it may be killed without a word.
    while os.getppid() == parent:
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
        ready.touch()


@contextmanager
def neighbour(is_wanted: bool, ready: Path) -> Iterator[None]:
    """Keep the neighbour at work, from its first step on, if it is wanted."""
    if not is_wanted:
        yield
        return
    ready.unlink(missing_ok=True)
    # As torch waits when nobody has set anything.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-m", "benchmarks.own_pictures.clock", "--be-a-neighbour", str(ready)]
    process = subprocess.Popen(command, env=environment)
    try:
        while not ready.exists():
            if process.poll() is not None:
                raise RuntimeError("the neighbour did not start")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def measure(uri: str, minutes: float, beside: str, out: Path) -> dict[str, Any]:
    """Run the command once and return its seconds, and those of its first product."""
    shutil.rmtree(out, ignore_errors=True)
    with neighbour(beside != "alone", out.with_suffix(".ready")):
        seconds, first = timed_command(["train", uri, "--minutes", f"{minutes:g}", "--out", str(out)], out)
    return {"uri": uri, "minutes": minutes, "beside": beside, "seconds": seconds, "first_product_seconds": first}


def line(found: list[dict[str, Any]], minutes: float, beside: str) -> str:
    """Return one row of the table."""
    spent = [one["seconds"] for one in found]
    firsts = [one["first_product_seconds"] for one in found if one["first_product_seconds"] is not None]
    limit = ON_TIME * 60 * minutes
    verdict = "passes" if max(spent) <= limit else "**misses**"
    first = f"{median(firsts):.0f}" if firsts else "none"
    numbers = ", ".join(f"{seconds:.0f}" for seconds in spent)
    return f"| {minutes:g} min, {beside} | {numbers} | {limit:.0f} | {verdict} | {first} |"


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uri", nargs="?", default="elpv:")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[3])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--be-a-neighbour", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.be_a_neighbour:
        be_a_neighbour(asked.be_a_neighbour)
        return
    if asked.out is None:
        parser.error("--out says where the runs go")
    print("| run | seconds | limit | verdict | first product, s, median |\n| --- | --- | --- | --- | --- |")
    for minutes in asked.minutes:
        for beside in BESIDE:
            found = []
            for repeat in range(asked.repeats):
                run = asked.out.absolute() / f"{minutes:g}-{beside.replace(' ', '-')}-{repeat}"
                file = run.with_name(f"{run.name}.json")
                if not file.exists():
                    write_text(file, json.dumps(measure(asked.uri, minutes, beside, run)))
                found.append(json.loads(file.read_text(encoding="utf-8")))
            print(line(found, minutes, beside), flush=True)


if __name__ == "__main__":
    main()
