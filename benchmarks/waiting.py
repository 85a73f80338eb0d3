"""How waiting threads should wait: a training step alone, and beside other work, under each of OpenMP's ways.

    python -m benchmarks.waiting --rounds 10 --json waiting.json

ResNet-18, batch 32, 96 px, two threads. Every way runs a few steps in a process of its own, in turns, so that all see
the same hours: alone, beside a neighbour of the same kind that waits passively, and beside one with OpenMP's default.
What is wanted: at most 1.2 times the passive way beside a neighbour, and of those the least cost alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin 1,000": {"GOMP_SPINCOUNT": "1000"},
    "spin 3,000": {"GOMP_SPINCOUNT": "3000"},
    "spin 5,000": {"GOMP_SPINCOUNT": "5000"},
}
PLACES = {"alone": None, "beside passive": "passive", "beside default": "default"}
STEP = """
import sys, time, torch, timm
torch.set_num_threads(2)
torch.manual_seed(0)
model = timm.create_model("resnet18", num_classes=10).train().to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
images = torch.randn(32, 3, 96, 96).to(memory_format=torch.channels_last)
labels = torch.zeros(32, dtype=torch.int64)
seconds = []
num, budget, start = int(sys.argv[1]), float(sys.argv[2]), time.perf_counter()
while num < 0 or (len(seconds) < num and (len(seconds) < 3 or time.perf_counter() - start < budget)):
    began = time.perf_counter()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
    seconds.append(time.perf_counter() - began)
    if len(seconds) == 1:
        print("running", flush=True)
print(sorted(seconds[1:])[len(seconds[1:]) // 2])
"""


def environment(way: str) -> dict[str, str]:
    """Return the environment of a process that waits in a way."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    return {key: value for key, value in os.environ.items() if key not in names} | WAYS[way]


def command(num_steps: int, budget: float) -> list[str]:
    """Return what computes so many steps, -1: until it is ended; at least 3 within the seconds."""
    return [sys.executable, "-c", STEP, str(num_steps), str(budget)]


@contextmanager
def neighbour(way: str) -> Iterator[None]:
    """Have a process train beside, from its first step on."""
    with subprocess.Popen(command(-1, 0), env=environment(way), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield
        finally:
            process.kill()


def step_seconds(way: str, num_steps: int, budget: float) -> float:
    """Return the median step of a process that waits in a way."""
    done = subprocess.run(
        command(num_steps, budget), env=environment(way), capture_output=True, text=True, check=True, timeout=600
    )
    return float(done.stdout.split()[-1])


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Return medians with their range, and ratios to the passive way within a round."""
    lines = ["| way | " + " | ".join(PLACES) + " |", "| --- |" + " --- |" * len(PLACES)]
    for way in WAYS:
        cells = []
        for place in PLACES:
            own, passive = found[place][way], found[place]["passive"]
            ratios = [one / other for one, other in zip(own, passive, strict=True)]
            low, high = min(own), max(own)
            told = f"{statistics.median(own):.2f} s ({low:.2f} to {high:.2f})"
            cells.append(f"{told}; {statistics.median(ratios):.2f}")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure all ways in turns and print the table; the second figure of a cell is the ratio to passive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=8.0, help="of one process at most, but for three steps")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {place: {way: [] for way in WAYS} for place in PLACES}
    for number in range(asked.rounds):
        for place, beside in PLACES.items():
            with nullcontext() if beside is None else neighbour(beside):
                for way in WAYS:
                    found[place][way].append(step_seconds(way, asked.steps, asked.seconds))
        print(f"round {number + 1} of {asked.rounds} done", file=sys.stderr, flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
