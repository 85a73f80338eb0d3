"""Measure what one NVIDIA GPU does with fixres, in less than eight minutes, and go on where a run was ended.

    benchmarks/gpu.sh --out DIR

Trains ResNet-50 at 224 and 160 px (bf16, channels last, compiled and not; on generated pictures held in memory, and on
generated JPEGs), evaluates it, reads JPEGs on all cores, and runs a small study from random weights with the cached
solver. Every measurement runs in a process of its own with a limit of its own, and has its result in DIR/results and
what it printed in DIR/logs; one that fails is listed with the last line of its error, and tried again by the next run,
which skips what is done. The table is printed at the end, also after Ctrl-C, and lies in DIR/summary.md and
DIR/summary.json. Exit status: 0 all is done, 1 something failed or is left, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import GPU, PICTURES, TOY, Measurement, Scale, measurements
from benchmarks.gpu.summary import read_result, result_file, summarise
from fixres.io.files import write_text

LEAST_SECONDS = 15.0
"""With less time than this left nothing is begun."""


def run(command: list[str], log: Path, limit_seconds: float) -> str:
    """Run a command with everything it starts, and return why it failed; empty: it did not."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Loader processes and compilers too, of one that has ended as well.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code == 0:
        return ""
    why = f"not done after {limit_seconds:.0f} s" if code is None else f"exit status {code}"
    return f"{why}: {last_error(log)}"


def last_error(log: Path) -> str:
    """Return the last line that names an error, else the last one that is not indented."""
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    flush = [line for line in lines if line.strip() and not line[0].isspace()]
    errors = [line for line in flush if re.match(r"(error|[\w.]+(Error|Exception|Interrupt|Exited)):", line)]
    return (errors or flush or ["it said nothing"])[-1]


def is_done(one: Measurement, out: Path, scale: Scale) -> bool:
    """Return whether there is a result, and what others need of it."""
    found = read_result(out, one, scale)
    return bool(found and found["status"] == "done" and (out / "work" / one.leaves).exists())


def measure(one: Measurement, out: Path, scale: Scale, limit_seconds: float) -> None:
    """Run one measurement and write its result."""
    answer = out / "work" / f"{one.name}.json"
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu.measure", one.name, "--work", str(out / "work")]
    command += ["--answer", str(answer), *(["--toy"] if scale is TOY else [])]
    start = time.monotonic()
    error = run(command, out / "logs" / f"{one.name}.log", limit_seconds)
    found: dict[str, Any] = {"name": one.name, "settings": one.settings(scale)}
    found["seconds"] = round(time.monotonic() - start, 1)
    if error:
        found |= {"status": "failed", "error": error}
    else:
        found |= {"status": "done", **json.loads(answer.read_text(encoding="utf-8"))}
    write_text(result_file(out, one.name), json.dumps(found))


def measure_all(out: Path, scale: Scale, end: float) -> None:
    """Measure what is not done, until `end` on the monotonic clock."""
    wanted = measurements(scale)
    for number, one in enumerate(wanted, 1):
        if is_done(one, out, scale):
            continue
        left = end - time.monotonic()
        if left < LEAST_SECONDS:
            print(f"{one.name} is not begun: {left:.0f} s are left", flush=True)
            continue
        print(f"{number} of {len(wanted)}: {one.name}", flush=True)
        measure(one, out, scale, min(one.limit_seconds, left))
        summarise(out, wanted, scale)
        if one is PICTURES and not is_done(one, out, scale):
            return


def interrupt(*_: Any) -> None:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> int:
    """Measure, print the table and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; go on with one that is there")
    parser.add_argument("--minutes", type=float, default=7.5, help="nothing runs for longer; 7.5 when left out")
    parser.add_argument("--toy", action="store_true", help="every path at toy size on the CPU")
    asked = parser.parse_args()
    end = time.monotonic() + 60 * asked.minutes
    out, scale = asked.out.absolute(), TOY if asked.toy else GPU
    if asked.toy:
        # Small networks gain nothing from more threads, and busy cores make them wait for each other.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    # SIGINT too: a shell that starts this in the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    is_interrupted = False
    try:
        measure_all(out, scale, end)
    except KeyboardInterrupt:
        is_interrupted = True
    wanted = measurements(scale)
    print(f"\n{summarise(out, wanted, scale)}", flush=True)
    if is_interrupted:
        return 130
    return 0 if all(is_done(one, out, scale) for one in wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
