"""Workers of a server that die, while they start or later, and what watches them. Slow: `make test-system`."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support.processes import all_end_within
from tests.support.serving import Running, make_run, serving

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("serve") / "run")


def workers_of(server: Running) -> list[int]:
    """Return the process numbers of the workers."""
    found = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(pid) for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def is_replaced(server: Running, pid: int) -> bool:
    """Return whether there are two workers, none of them `pid`, at one look."""
    now = workers_of(server)
    return len(now) == 2 and pid not in now


def is_ready(server: Running) -> bool:
    """Return whether a worker answers."""
    try:
        return httpx.get(f"{server.url}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def within(seconds: float, happens: Callable[[], object]) -> bool:
    """Return whether something happens in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if happens():
            return True
        time.sleep(0.2)
    return False


def test_a_worker_that_dies_while_it_starts_is_replaced_and_the_server_still_ends_in_time(run: Path) -> None:
    with serving(run, "--workers", "2", "--threads", "1") as server:
        assert within(120, lambda: is_ready(server) and len(workers_of(server)) == 2)
        first = workers_of(server)
        os.kill(first[0], signal.SIGKILL)
        assert within(10, lambda: is_replaced(server, first[0]))
        starting = next(pid for pid in workers_of(server) if pid not in first)
        os.kill(starting, signal.SIGKILL)
        assert within(10, lambda: is_replaced(server, starting))
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < 30


def test_a_server_whose_workers_can_start_no_more_ends(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    with serving(copy, "--workers", "2", "--threads", "1") as server:
        assert within(120, lambda: is_ready(server) and len(workers_of(server)) == 2)
        shutil.rmtree(copy / "model")
        for pid in workers_of(server):
            os.kill(pid, signal.SIGKILL)
        # Somebody who watches it, such as systemd, can start it again only when it has ended.
        assert server.process.wait(120) == 1


def test_workers_end_with_what_started_them(run: Path) -> None:
    with serving(run, "--workers", "2", "--threads", "1") as server:
        assert within(120, lambda: is_ready(server) and len(workers_of(server)) == 2)
        workers = workers_of(server)
        server.process.kill()
        server.process.wait()
        assert all_end_within(40, workers)
        assert not is_ready(server)
