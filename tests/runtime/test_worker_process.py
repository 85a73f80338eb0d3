"""Processes that work for another one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import all_end_within

PARENT = """
import multiprocessing, os, sys, time
from fixres.runtime.worker_process import end_with_parent
def work(pipe):
    # Says who it is, and has not come to watch its parent when that one is gone.
    pipe.send(os.getpid())
    time.sleep(2)
    end_with_parent(lambda: os._exit(1))
    time.sleep(60)
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    here, there = context.Pipe()
    context.Process(target=work, args=(there,)).start()
    print(here.recv(), flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_ends_with_a_parent_that_was_gone_before_it_looked(method: str, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script), method], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    assert all_end_within(10, [worker])
