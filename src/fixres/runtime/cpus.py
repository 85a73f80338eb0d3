"""How many processors this process may use: the cores of the machine, its affinity, and the quota of its container."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import psutil

_PROC = Path("/proc/self")


@dataclass(frozen=True)
class Cpus:
    """What limits a process to some processors."""

    cores: int
    """Of the machine."""
    affinity: int
    """Those it may run on (`taskset`, Slurm, a cpuset)."""
    quota: float = math.inf
    """Processors' worth of time its control groups give it (`docker --cpus`, a limit of Kubernetes)."""

    @property
    def usable(self) -> int:
        """How many can work at the same time; a part of one counts as one."""
        return max(1, min(self.affinity, math.ceil(min(self.quota, self.affinity))))

    def describe(self) -> str:
        """Return the cores, and what allows fewer of them."""
        limits = [f"{self.affinity} by affinity"] if self.affinity < self.cores else []
        limits += [f"{self.quota:g} by quota"] if self.quota < self.cores else []
        return f"{self.cores} cores" + (f", {' and '.join(limits)}: {self.usable} used" if limits else "")


def let_waiting_threads_sleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have threads that wait for others give their core away at once, unless the user has said how they wait.

    OpenMP's own way is to keep the core busy, which takes it from whatever else runs there, the processes that read
    pictures first of all. It is read when PyTorch is loaded, so this must come before; child processes inherit it.
    """
    if not any(name in environment for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        environment["OMP_WAIT_POLICY"] = "passive"


def find_cpus(proc: Path | None = None) -> Cpus:
    """Return what the kernel says of this process; `proc`: its folder there, another in tests."""
    cores = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return Cpus(cores, affinity, min((_quota(folder) for folder in _groups(proc or _PROC)), default=math.inf))


def usable_cpus() -> int:
    """Return how many processors this process can keep busy, at least 1."""
    return find_cpus().usable


def resolve_workers(workers: int | Literal["auto"]) -> int:
    """Return the number of loader processes; auto: one per processor this process may use, at most 8."""
    if workers != "auto":
        return workers
    return min(8, usable_cpus())


class OtherWork:
    """What other programs use of the machine from here on."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._busy = _busy_seconds() - _own_seconds()

    def seconds(self) -> float:
        """Return how long this has been looked at."""
        return time.monotonic() - self._start

    def missing(self) -> float:
        """Return the share of the processors this process may use that others left it without, on average, 0 to 1."""
        others = (_busy_seconds() - _own_seconds() - self._busy) / max(self.seconds(), 1e-9)
        cpus = find_cpus()
        return min(1.0, max(0.0, 1 - max(0.0, cpus.cores - others) / cpus.usable))


def _busy_seconds() -> float:
    """Return the seconds all processors of the machine worked; time a hypervisor took away counts, too."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))


def _own_seconds() -> float:
    """Return the seconds of processor time of this process and its children, of those that have ended as well."""
    own = psutil.Process()
    total = float(sum(own.cpu_times()[:4]))
    for child in own.children(recursive=True):
        try:
            total += sum(child.cpu_times()[:4])
        except psutil.Error:
            continue
    return total


def _groups(proc: Path) -> Iterator[Path]:
    """Yield the folders of the control groups that divide processor time, from the process's own upwards."""
    try:
        groups = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
        mounts = [line.split() for line in (proc / "mountinfo").read_text().splitlines()]
    except (OSError, UnicodeDecodeError):
        return
    # Version 2 has one tree, of number 0; version 1 one for each set of controllers.
    own = {
        "cgroup2" if number == "0" else "cgroup": path
        for number, controllers, path in (group for group in groups if len(group) == 3)
        if number == "0" or "cpu" in controllers.split(",")
    }
    for fields in mounts:
        if len(fields) < 10:
            continue
        # Number, parent, device, root, mount point, options, any number of tags, -, kind, source, options.
        kind, options = fields[-3], fields[-1].split(",")
        if kind not in own or (kind == "cgroup" and "cpu" not in options):
            continue
        path, root, top = PurePosixPath(own[kind]), fields[3], Path(fields[4])
        # A container may see the path its host has for it, and only its own part of the tree mounted.
        inside = path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()
        yield from (top.joinpath(*inside.parts[:depth]) for depth in range(len(inside.parts), -1, -1))


def _quota(group: Path) -> float:
    """Return the processors that one group may keep busy; infinite where it says nothing that can be understood."""
    try:
        if (group / "cpu.max").exists():
            limit, period = (group / "cpu.max").read_text().split()
        else:
            limit, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        quota = int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf  # "max", the top of the tree, or a file of another form
    return quota if quota > 0 else math.inf
