"""Many clients at once, each answer compared with `predict`: how fast a server is, and whether it is right.

    python -m tests.support.load_tester URL CHECKPOINT PICTURES... [--clients 64] [--seconds 60] [--requests N]

Clients are threads of one process; their processor time is reported beside the rate of the server,
since on one machine they share the cores.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

TOLERANCE = 1e-4
"""Of a probability; batches of other sizes differ in the last bits."""


@dataclass(frozen=True)
class Load:
    """What to do to a server."""

    url: str
    clients: int = 64
    seconds: float = 60.0
    requests: int = 0
    """End after so many answers in place of seconds; 0: seconds decide."""


@dataclass
class Found:
    """What the clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    num_wrong: int = 0
    """Answers whose best class or any probability is not that of `predict`."""
    latencies: list[float] = field(default_factory=list)
    """Seconds, of answers with 200."""
    seconds: float = 0.0
    client_cpu_seconds: float = 0.0

    def _percentile(self, share: float) -> float:
        return float(np.percentile(self.latencies, share)) if self.latencies else float("nan")

    @property
    def p50(self) -> float:
        """Median seconds of an answer."""
        return self._percentile(50)

    @property
    def p95(self) -> float:
        """Seconds within which 95 % were answered."""
        return self._percentile(95)

    @property
    def p99(self) -> float:
        """Seconds within which 99 % were answered."""
        return self._percentile(99)

    @property
    def rate(self) -> float:
        """Pictures per second."""
        return len(self.latencies) / self.seconds

    def text(self) -> str:
        """Return the result in one paragraph."""
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        return (
            f"{self.rate:.1f} pictures/s over {self.seconds:.0f} s; {statuses}; wrong: {self.num_wrong}\n"
            f"p50 {1000 * self.p50:.0f} ms, p95 {1000 * self.p95:.0f} ms, p99 {1000 * self.p99:.0f} ms; "
            f"clients used {1000 * self.client_cpu_seconds / max(1, sum(self.statuses.values())):.2f} ms of processor "
            "time per request\n"
        )


def measure_load(
    load: Load, data: Sequence[bytes], wanted: Sequence[npt.NDArray[np.float64]], classes: Sequence[str]
) -> Found:
    """Send pictures from many clients, each waiting for its answer before it sends the next.

    Args:
        load: how many clients, and for how long.
        data: picture files.
        wanted: probabilities `[C]` of each, as `predict` gives them.
        classes: their names.
    """
    found, lock = Found(), threading.Lock()
    end = time.monotonic() + load.seconds
    left = iter(range(load.requests)) if load.requests else None
    names = {name: place for place, name in enumerate(classes)}

    def client(number: int) -> None:
        own = Found()
        turn = number
        connection: http.client.HTTPConnection | None = None
        while True:
            with lock:
                if next(left, None) is None if left is not None else time.monotonic() >= end:
                    break
            place = turn % len(data)
            turn += load.clients + 1
            start = time.monotonic()
            connection = connection or _connect(load.url)
            connection.request("POST", "/v1/predict?top_k=5", body=data[place])
            answer = connection.getresponse()
            body = answer.read()
            own.statuses[answer.status] += 1
            if answer.getheader("connection") == "close":
                connection.close()
                connection = None
            if answer.status == 200:
                own.latencies.append(time.monotonic() - start)
                own.num_wrong += _is_wrong(json.loads(body)["top"], wanted[place], names)
            elif answer.status == 503:
                time.sleep(0.05)
        with lock:
            found.statuses += own.statuses
            found.num_wrong += own.num_wrong
            found.latencies += own.latencies

    threads = [threading.Thread(target=client, args=(number,)) for number in range(load.clients)]
    start, cpu = time.monotonic(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.seconds, found.client_cpu_seconds = time.monotonic() - start, time.process_time() - cpu
    return found


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)


def _is_wrong(top: Sequence[dict[str, float | str]], wanted: npt.NDArray[np.float64], names: dict[str, int]) -> bool:
    given = np.array([float(entry["probability"]) for entry in top])
    places = [names[str(entry["name"])] for entry in top]
    if np.abs(given - wanted[places]).max() > TOLERANCE:
        return True
    return bool(wanted.max() - wanted[places[0]] > TOLERANCE)


def main(words: Sequence[str] | None = None) -> int:
    """Load a server with pictures and print what came back; 1 when an answer was wrong."""
    parser = argparse.ArgumentParser(description="Many clients at once, each answer compared with predict.")
    parser.add_argument("url")
    parser.add_argument("checkpoint")
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--requests", type=int, default=0)
    flags = parser.parse_args(words)
    from fixres.checkpoints.resolve import load
    from fixres.config.recipe import Runtime as RuntimeSettings
    from fixres.inference.predict import Pictures, Predictor
    from fixres.runtime.device import Runtime

    product = load(flags.checkpoint)
    # The server says at which size it answers.
    connection = _connect(flags.url)
    connection.request("GET", "/v1/model")
    product = product.at(json.loads(connection.getresponse().read())["size"])
    data = [Path(path).read_bytes() for path in Pictures(flags.pictures)]
    predictor = Predictor(product, Runtime(RuntimeSettings()), len(product.classes))
    place = {name: k for k, name in enumerate(product.classes)}
    wanted = []
    for one in predictor(data):
        row = np.zeros(len(place))
        for name, probability in one.top:
            row[place[name]] = probability
        wanted.append(row)
    found = measure_load(Load(flags.url, flags.clients, flags.seconds, flags.requests), data, wanted, product.classes)
    sys.stdout.write(found.text())
    return int(found.num_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
