"""Processes that `srun` started: Slurm's names for rank and address, said in PyTorch's.

PyTorch and Accelerate read RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT when they are
imported or set up, so this has to happen first.
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping

from fixres.errors import UserError

_LAUNCHED = ("RANK", "OMPI_COMM_WORLD_RANK")
_FIRST_PORT = 20000
_NUM_PORTS = 10000
_LOOPBACK = "127.0.0.1"
_BRACKETS = re.compile(r"\[([0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*)\]")


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
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    # Rank 0 listens on the first host; the name of a node need not resolve on the node itself.
    environment.setdefault("MASTER_ADDR", first_host(nodes) if len(tasks_per_node) > 1 else _LOOPBACK)
    environment.setdefault("MASTER_PORT", str(_port(environment)))
    environment["RANK"] = str(rank)
    environment["LOCAL_RANK"] = str(_number(environment, "SLURM_LOCALID"))
    environment["WORLD_SIZE"] = str(num_tasks)
    environment["LOCAL_WORLD_SIZE"] = str(tasks_per_node[node])
    return True


def first_host(nodes: str) -> str:
    """Return the first host of a Slurm list: n01 of `n[01-03,7],login`, and r1n1 of `r[1-2]n[1-4]`.

    Not by `scontrol show hostnames`: containers often lack Slurm's commands.

    Raises:
        UserError: the text is no list of hosts.
    """
    firsts = [name for name in _BRACKETS.sub(_first_number, nodes.strip()).split(",") if name]
    if not firsts or any(re.search(r"[\[\]\s]", name) for name in firsts):
        raise UserError(f"{nodes!r} is no list of hosts; expected names like n[01-03,7],login")
    return firsts[0]


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


def _port(environment: MutableMapping[str, str]) -> int:
    """Return a port that all tasks of a step agree on, and that other jobs on the host are unlikely to have.

    It lies below the range that Linux hands out by itself.
    """
    identity = _number(environment, "SLURM_JOB_ID") + _number(environment, "SLURM_STEP_ID")
    return _FIRST_PORT + identity % _NUM_PORTS


def _first_number(brackets: re.Match[str]) -> str:
    """Return 01 of `[01-03,7]`; brackets with a range that runs backwards as they are."""
    ranges = [part.split("-") for part in brackets[1].split(",")]
    return ranges[0][0] if all(int(ends[0]) <= int(ends[-1]) for ends in ranges) else brackets[0]
