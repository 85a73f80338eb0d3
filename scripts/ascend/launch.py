"""Starts `fixres` in N processes as torchrun does: `launch.py N WORDS...`. Ends with their exit code, and their words.

torchrun itself ends with 1 whatever they end with, and prints a traceback of its own over a message for people.
"""

from __future__ import annotations

import logging
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run


def main(processes: str, words: list[str]) -> int:
    """Run the processes and return the exit code of the first that failed, 0 if none did."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run(parse_args(["--standalone", "--nproc-per-node", processes, "-m", "fixres", *words]))
    except SignalException as stop:
        return 128 + int(stop.sigval)
    except ChildFailedError as error:
        failures = sorted(error.failures.items(), key=lambda item: item[1].timestamp)
        code = next((failure.exitcode for _, failure in failures if failure.exitcode > 0), 0)
        if code:
            return code
        rank, failure = failures[0]
        print(f"process {rank} was ended by signal {-failure.exitcode}", file=sys.stderr)
        return 128 - failure.exitcode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
