"""What a step frees is kept for the next one."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own behaviour")

SOURCE = Path(__file__).parents[2] / "src"
PROGRAM = """
import resource, sys
import numpy as np
from fixres.runtime.malloc import keep_freed_memory, release_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(40 * 2**17)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

default = faults()
was_set = keep_freed_memory()
np.ones(40 * 2**17)
kept = faults()
release_freed_memory()
print(was_set, default, kept, faults())
"""


def run(**environment: str) -> list[str]:
    """Return what a process prints that has no more than this environment."""
    command, environment = [sys.executable, "-c", PROGRAM], {"PYTHONPATH": str(SOURCE), **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


def test_blocks_of_a_batch_are_not_faulted_in_again() -> None:
    was_set, default, kept, released = run()
    pages = 4 * 40 * 2**20 // resource.getpagesize()
    assert was_set == "True"
    assert int(default) >= pages / 512  # Huge pages make one fault of 512.
    assert int(kept) < int(default) / 4
    assert int(released) >= int(default) / 2


def test_the_users_own_settings_stay() -> None:
    was_set, default, kept, _ = run(MALLOC_TRIM_THRESHOLD_="1000000")
    assert was_set == "False"
    assert int(kept) > int(default) / 2
