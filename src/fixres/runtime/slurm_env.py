"""Processes that `srun` started: Slurm's names for rank and address, said in PyTorch's.

PyTorch and Accelerate read RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT when they are
imported or set up, so this has to happen first.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Iterator, MutableMapping

from fixres.errors import UserError

_LAUNCHED = ("RANK", "OMPI_COMM_WORLD_RANK")
_FIRST_PORT = 20000
_NUM_PORTS = 10000
_LOOPBACK = "127.0.0.1"
_MAX_HOSTS = 100_000


def adopt_slurm(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Set PyTorch's variables from Slurm's when this process is one of several tasks of an `srun` step.

    Nothing changes where another launcher has named the rank (torchrun, mpirun), in a step of one task, and in the
    shell of `sbatch` or `salloc`, which has SLURM_PROCID 0 and the job's SLURM_NTASKS without being a rank. An address
    or port that is already set is kept.

    Returns:
        Whether the variables were set.

    Raises:
        UserError: Slurm's variables are there, but make no sense.
    """
    if any(name in environment for name in _LAUNCHED) or "SLURM_STEP_ID" not in environment:
        return False
    num_tasks = _number(environment, "SLURM_STEP_NUM_TASKS", default=1)
    if num_tasks < 2:
        return False
    node, rank = _number(environment, "SLURM_NODEID"), _number(environment, "SLURM_PROCID")
    tasks_per_node = _tasks_per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", str(num_tasks)))
    if rank >= num_tasks or node >= len(tasks_per_node):
        raise UserError(
            f"Slurm's variables contradict each other: task {rank} of {num_tasks}, node {node} of {len(tasks_per_node)}"
            "\n  start one process per task with srun"
        )
    environment.setdefault("MASTER_ADDR", _address(environment, len(tasks_per_node)))
    environment.setdefault("MASTER_PORT", str(_port(environment)))
    environment["RANK"] = str(rank)
    environment["LOCAL_RANK"] = str(_number(environment, "SLURM_LOCALID"))
    environment["WORLD_SIZE"] = str(num_tasks)
    environment["LOCAL_WORLD_SIZE"] = str(tasks_per_node[node])
    return True


def expand_hosts(nodes: str) -> list[str]:
    """Return the host names of a Slurm list, in its order: `n[01-03,7],login` is n01, n02, n03, n7, login.

    Numbers keep the width of the first of their range, and a name may hold several brackets (`r[1-2]n[1-4]`).

    Raises:
        UserError: the text is no list of hosts.
    """
    return [host for item in _split_outside_brackets(nodes) for host in _expand(item, nodes)]


def _number(environment: MutableMapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"[0-9]+", text):
        given = f"is {text!r}" if text else "is missing"
        raise UserError(f"{name} {given}; expected a number\n  start one process per task with srun")
    return int(text)


def _tasks_per_node(text: str) -> list[int]:
    """Return `2(x3),1` as [2, 2, 2, 1]."""
    counts = []
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]+)(?:\(x([0-9]+)\))?", part)
        if found is None:
            raise UserError(f"SLURM_STEP_TASKS_PER_NODE is {text!r}; expected counts like 4(x2),3")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def _address(environment: MutableMapping[str, str], num_nodes: int) -> str:
    """Return where rank 0 listens: the first host of the step."""
    if num_nodes == 1:
        # The name of a node need not resolve on the node itself.
        return _LOOPBACK
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    try:
        answer = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, timeout=30, check=True
        )
        hosts = answer.stdout.split()
    except (OSError, subprocess.SubprocessError):
        # Containers often lack Slurm's commands.
        hosts = []
    return (hosts or expand_hosts(nodes))[0]


def _port(environment: MutableMapping[str, str]) -> int:
    """Return a port that all tasks of a step agree on, and that other jobs on the host are unlikely to have.

    It lies below the range that Linux hands out by itself.
    """
    identity = _number(environment, "SLURM_JOB_ID") + _number(environment, "SLURM_STEP_ID")
    return _FIRST_PORT + identity % _NUM_PORTS


def _split_outside_brackets(nodes: str) -> list[str]:
    return [item for item in re.split(r",(?![^\[]*\])", nodes.strip()) if item] or [""]


def _expand(item: str, nodes: str) -> Iterator[str]:
    """Yield the hosts of one name with any number of brackets."""
    parts = re.split(r"\[([^\[\]]*)\]", item)
    if not item or any(re.search(r"[\[\]\s]", part) for part in parts):
        raise UserError(f"{nodes!r} is no list of hosts; expected names like n[01-03,7],login")
    choices = [_numbers(part, nodes) if i % 2 else [part] for i, part in enumerate(parts)]
    for chosen in itertools.product(*choices):
        yield "".join(chosen)


def _numbers(text: str, nodes: str) -> list[str]:
    """Return `01-03,7` as 01, 02, 03, 7."""
    found = []
    for part in text.split(","):
        ends = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part)
        if ends is None or not 0 <= int(ends[2] or ends[1]) - int(ends[1]) < _MAX_HOSTS:
            raise UserError(f"{nodes!r} is no list of hosts; expected names like n[01-03,7],login")
        numbers = range(int(ends[1]), int(ends[2] or ends[1]) + 1)
        found += [str(number).zfill(len(ends[1])) for number in numbers]
    return found
