"""Processors this process may use: affinity, and the quotas of control groups of both versions, nested or damaged."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.runtime import cpus
from fixres.runtime.cpus import Cpus, OtherWork, find_cpus, resolve_workers, usable_cpus
from fixres.runtime.device import Runtime


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def machine(root: Path, own: str, files: dict[str, str], mounted: str = "/", version: int = 2) -> Path:
    """Return a folder as /proc/self of a process in the group `own`, with `files` below where groups are mounted."""
    top = root / "sys/fs/cgroup"
    kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,cpu,cpuacct"
    proc = root / "proc"
    proc.mkdir()
    controllers = "0::" if version == 2 else "9:memory:/elsewhere\n4:cpu,cpuacct:"
    (proc / "cgroup").write_text(f"{controllers}{own}\n")
    (proc / "mountinfo").write_text(
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        f"30 22 0:26 / {root}/memory rw - cgroup cgroup rw,memory\n"
        f"31 22 0:27 {mounted} {top} rw,nosuid shared:9 - {kind}\n"
    )
    for name, content in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return proc


def of_v1(folder: str, quota: str, period: str = "100000") -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": period}


NESTED = {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000", "a/b/c/cpu.max": "800000 100000"}


@pytest.mark.parametrize(
    ("own", "files", "usable"),
    [
        ("/", {"cpu.max": "max 100000"}, 16),
        ("/", {"cpu.max": "200000 100000"}, 2),
        ("/", {"cpu.max": "50000 100000"}, 1),
        ("/", {"cpu.max": "3200000 100000"}, 16),
        ("/a/b/c", NESTED, 2),
        ("/a/b", {**NESTED, "a/cpu.max": "max 100000"}, 16),
        ("/gone/away", {"cpu.max": "300000 100000"}, 3),
        ("/a", {"a/cpu.max": "much"}, 16),
        ("/a", {"a/cpu.max": ""}, 16),
        ("/a", {"a/cpu.max": "100000 0"}, 16),
        ("/a", {"a/cpu.max": "-5 100000"}, 16),
        ("/a", {}, 16),
    ],
)
def test_a_quota_of_version_2_counts_wherever_above_the_process_it_is(
    tmp_path: Path, own: str, files: dict[str, str], usable: int
) -> None:
    assert find_cpus(machine(tmp_path, own, files)).usable == usable


@pytest.mark.parametrize(
    ("own", "files", "usable"),
    [
        ("/", of_v1(".", "-1"), 16),
        ("/pod", of_v1(".", "-1") | of_v1("pod", "250000"), 3),
        ("/pod/one", of_v1("pod", "100000") | of_v1("pod/one", "400000"), 1),
        ("/pod", {"pod/cpu.cfs_quota_us": "100000"}, 16),
        ("/pod", of_v1("pod", "100000", "0"), 16),
    ],
)
def test_a_quota_of_version_1_counts(tmp_path: Path, own: str, files: dict[str, str], usable: int) -> None:
    assert find_cpus(machine(tmp_path, own, files, version=1)).usable == usable


@pytest.mark.parametrize("own", ["/docker/abc", "/", "/../other", "/docker/abc/inner"])
def test_a_container_sees_its_own_part_of_the_tree(tmp_path: Path, own: str) -> None:
    proc = machine(tmp_path, own, {"cpu.max": "400000 100000"}, mounted="/docker/abc")
    assert find_cpus(proc).usable == 4


def test_without_control_groups_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert find_cpus(tmp_path) == Cpus(16, 2, math.inf)
    (tmp_path / "cgroup").write_text("nonsense\n0::/\n\n")
    (tmp_path / "mountinfo").write_text("nonsense\n\n1 2 3 - cgroup2 cgroup2 rw\n")
    assert find_cpus(tmp_path).usable == 2


def test_what_was_found_can_be_read() -> None:
    assert Cpus(8, 8).describe() == "8 cores"
    assert Cpus(64, 16, 0.5).describe() == "64 cores, 16 by affinity and 0.5 by quota: 1 used"


def test_workers_and_threads_heed_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_PROC", machine(tmp_path, "/", {"cpu.max": "150000 100000"}))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert usable_cpus() == resolve_workers("auto") == 2
        assert Runtime(RuntimeSettings(device="cpu", threads=3)).threads == 3
        assert Runtime(RuntimeSettings(device="cpu")).threads == 2
        torch.set_num_threads(1)
        assert Runtime(RuntimeSettings(device="cpu")).threads == 1
        torch.set_num_threads(4)
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        assert Runtime(RuntimeSettings(device="cpu")).threads == 4
    finally:
        torch.set_num_threads(before)


def wait_policy_after(code: str, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    code += "; import os, sys; print(); print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**clean, **environment}, check=True)
    return told.stdout.decode().splitlines()[-1]


COMMAND = "from fixres.cli.main import main; main(['recipes'])"


@pytest.mark.parametrize(
    ("code", "environment", "found"),
    [
        (COMMAND, {}, "passive False"),
        (COMMAND, {"OMP_WAIT_POLICY": "active"}, "active False"),
        (COMMAND, {"GOMP_SPINCOUNT": "10000"}, "None False"),
        (COMMAND, {"KMP_BLOCKTIME": "1"}, "None False"),
        ("import fixres", {}, "None False"),
        (f"import torch; {COMMAND}", {}, "None True"),
    ],
)
def test_commands_let_waiting_threads_sleep_before_torch_is_loaded(
    code: str, environment: dict[str, str], found: str
) -> None:
    assert wait_policy_after(code, **environment) == found


@pytest.mark.parametrize(
    ("busy", "own", "missing"),
    [(40.0, 40.0, 0.0), (30.0, 15.0, 0.0), (40.0, 15.0, 0.25), (40.0, 0.0, 1.0)],
)
def test_what_others_use_is_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, busy: float, own: float, missing: float
) -> None:
    """Ten seconds on four processors, of which this process may use two."""
    clock = [0.0, 0.0, 0.0]
    monkeypatch.setattr(cpus, "find_cpus", lambda: Cpus(4, 2))
    monkeypatch.setattr(cpus, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(cpus, "_busy_seconds", lambda: clock[1])
    monkeypatch.setattr(cpus, "_own_seconds", lambda: clock[2])
    others = OtherWork()
    clock[:] = [10.0, busy, own]
    assert others.missing() == pytest.approx(missing)


def test_the_work_of_this_process_and_its_children_is_its_own() -> None:
    before = cpus._own_seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert cpus._own_seconds() - before >= 0.25
    assert cpus._busy_seconds() > cpus._own_seconds()
