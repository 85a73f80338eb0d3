"""The text of an sbatch file that trains one recipe, survives its time limit, and starts one process per GPU."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fixres.errors import UserError

_WAIT_SECONDS = 300


@dataclass(frozen=True)
class Job:
    """What Slurm is asked for. Empty texts and None leave a choice to the cluster."""

    name: str
    command: Sequence[str]
    """Words of the command that every task runs."""
    start_folder: Path
    run_folder: Path
    nodes: int
    tasks_per_node: int
    gres: str = ""
    """Generic resource of a node, for example gpu:4."""
    partition: str = ""
    account: str = ""
    time: str = ""
    cpus_per_task: int | None = None
    mem: str = ""
    signal_seconds: int = 120
    """How long before the end of its time the run is told to stop."""
    setup: str = ""
    """Commands of the user's, run before on the first node."""


def sbatch_text(job: Job) -> str:
    """Return the sbatch file of `job`.

    Raises:
        UserError: a folder whose name Slurm cannot be given.
    """
    options = [
        f"--job-name={_quoted(job.name)}",
        f"--nodes={job.nodes}",
        f"--ntasks-per-node={job.tasks_per_node}",
        *(f"--{name}={_quoted(text)}" for name, text in _chosen(job).items() if text),
        f"--chdir={_quoted(_writable(job.start_folder))}",
        # %j is the number of the job; % in a name of the user's is doubled.
        f"--output={_quoted(_writable(job.run_folder).replace('%', '%%') + '/slurm-%j.out')}",
        "--open-mode=append",
        "--requeue",
        f"--signal=USR1@{job.signal_seconds}",
    ]
    cpus = job.cpus_per_task or 1
    srun = ["srun", "--export=ALL", "--kill-on-bad-exit=0", f"--wait={_WAIT_SECONDS}"]
    if job.cpus_per_task is not None:
        # srun takes this from the job no longer, since Slurm 22.05.
        srun.append(f"--cpus-per-task={job.cpus_per_task}")
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *(f"#SBATCH {option}" for option in options),
            "",
            *([job.setup, ""] if job.setup else []),
            f"export OMP_NUM_THREADS={cpus}",
            "",
            "# One task per process: they find each other by the number of the job. A task may leave a while after the",
            "# first one has: it may be writing the checkpoint.",
            "code=0",
            f"{shlex.join(srun)} \\\n    {shlex.join(job.command)} || code=$?",
            "",
            "# 75: stopped by a signal after a checkpoint. 138: the signal came before the run could listen to it.",
            'if [ "$code" = 75 ] || [ "$code" = 138 ]; then',
            '    echo "job $SLURM_JOB_ID stopped with $code: back into the queue"',
            '    scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            'exit "$code"',
            "",
        ]
    )


def _chosen(job: Job) -> dict[str, str]:
    return {
        "gres": job.gres,
        "cpus-per-task": "" if job.cpus_per_task is None else str(job.cpus_per_task),
        "mem": job.mem,
        "time": job.time,
        "partition": job.partition,
        "account": job.account,
    }


def _quoted(text: str) -> str:
    """Return a word of an #SBATCH line; sbatch takes quotes off as a shell does, and expands nothing."""
    if all(c.isalnum() or c in "/._-:=,@+%" for c in text):
        return text
    return '"' + text.replace('"', '\\"') + '"'


def _writable(folder: Path) -> str:
    """Return the folder as text; a backslash switches off Slurm's %j, and a line end would end the option."""
    text = str(folder)
    if "\\" in text or not text.isprintable():
        raise UserError(f"Slurm cannot be given the folder {text!r}\n  --out DIR without backslashes and line ends")
    return text
