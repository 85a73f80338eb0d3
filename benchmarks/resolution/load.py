"""Accuracy and latency of a server against load, with and without a smaller size to fall to.

    fixres fix runs/resolution/runs/crops_fold-0_seed-0/train --size 128 --sizes 64,128 --out runs/resolution/serve
    python -m benchmarks.resolution.load runs/resolution/serve --data csv:runs/resolution/fold-0.csv --degrade-to 64

Test pictures arrive at fixed rates, whatever the server does (an open loop, as visitors come), for `--seconds` each.
One thread computes, the rest of the machine asks, 64 pictures at once at most. Rates are shares of what the server
answers when it is asked without a pause, measured first. Latency counts from when a picture was due.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from benchmarks.own_pictures.folds import Row, read_fold

RATES = (0.5, 0.9, 1.2, 1.8)
"""Of the capacity at the larger size."""
CLIENTS = 64
_local = threading.local()


class Answer(NamedTuple):
    """What came of one picture."""

    status: int
    seconds: float
    is_right: bool = False
    is_degraded: bool = False


@contextmanager
def serving(product: Path, words: Sequence[str]) -> Iterator[str]:
    """Run `fixres serve` on one thread and a free port, and yield its address."""
    command = [sys.executable, "-m", "fixres", "serve", str(product), "--port", "0", "--threads", "1", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        try:
            found = next(found for line in process.stderr if (found := re.search(r"http://\S+", line)))
            # The pipe must not fill up.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield found[0]
        finally:
            process.send_signal(signal.SIGTERM)


def ask(address: str, picture: bytes, label: str, due: float) -> Answer:
    """Send one picture when it is due, over this thread's own connection."""
    time.sleep(max(0.0, due - time.monotonic()))
    connection: http.client.HTTPConnection | None = getattr(_local, address, None)
    if connection is None:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        setattr(_local, address, connection)
    connection.request("POST", "/v1/predict", picture)
    reply = connection.getresponse()
    answer = json.loads(reply.read())
    seconds = time.monotonic() - due
    if reply.status != 200:
        return Answer(reply.status, seconds)
    return Answer(200, seconds, answer["top"][0]["name"] == label, bool(answer["degraded"]))


def at_rate(address: str, pictures: Sequence[tuple[bytes, str]], rate: float, seconds: float) -> list[Answer]:
    """Send pictures at a rate, each on its time; 0: as fast as the clients are answered."""
    num = max(1, int(rate * seconds)) if rate else len(pictures)
    start = time.monotonic() + 0.1
    with ThreadPoolExecutor(CLIENTS) as pool:
        sent = [
            pool.submit(ask, address, *pictures[k % len(pictures)], start + (k / rate if rate else 0))
            for k in range(num)
        ]
        return [one.result() for one in sent]


def row(words: str, rate: float, answers: Sequence[Answer], seconds: float) -> str:
    """Return a line of the table."""
    good = [one for one in answers if one.status == 200]
    waits = np.array([one.seconds for one in good]) * 1000
    degraded = 100 * np.mean([one.is_degraded for one in good])
    right = 100 * np.mean([one.is_right for one in good])
    shown = (words, f"{rate:.0f}", len(answers), len(answers) - len(good), f"{len(good) / seconds:.0f}")
    cells = (*shown, f"{degraded:.0f} %", f"{right:.1f}", f"{np.median(waits):.0f}", f"{np.quantile(waits, 0.95):.0f}")
    return "| " + " | ".join(map(str, cells)) + " |"


def opened(rows: Sequence[Row]) -> list[tuple[bytes, str]]:
    """Return the test pictures as files, with their labels, in a shuffled order that is the same every time."""
    tested = [row for row in rows if row.split == "test"]
    order = np.random.default_rng(0).permutation(len(tested))
    return [(Path(tested[k].path).read_bytes(), tested[k].label) for k in order]


def main() -> None:
    """Measure every rate with and without the smaller size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("product", type=Path)
    parser.add_argument("--data", required=True, help="csv:FILE of a fold, whose test pictures are sent")
    parser.add_argument("--degrade-to", required=True)
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    pictures = opened(read_fold(Path(asked.data.removeprefix("csv:"))))
    with serving(asked.product, ()) as address:
        at_rate(address, pictures[:64], 0, 0)
        start = time.monotonic()
        at_rate(address, pictures, 0, 0)
        capacity = len(pictures) / (time.monotonic() - start)
    print(f"asked without a pause: {capacity:.0f} pictures/s\n")
    print("| | arrive/s | sent | refused | answered/s | at the smaller size | top-1, % | median, ms | 95 %, ms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, words in (("as it is", ()), (f"--degrade-to {asked.degrade_to}", ("--degrade-to", asked.degrade_to))):
        with serving(asked.product, words) as address:
            at_rate(address, pictures[:64], 0, 0)
            for share in RATES:
                start = time.monotonic()
                answers = at_rate(address, pictures, share * capacity, asked.seconds)
                print(row(name, share * capacity, answers, time.monotonic() - start), flush=True)


if __name__ == "__main__":
    main()
