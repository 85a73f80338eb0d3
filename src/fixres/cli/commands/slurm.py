"""`fixres slurm`: a recipe as a job for a cluster, which survives its time limit and starts one process per GPU."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fixres.cli.commands.train import default_folder
from fixres.cli.parse import TrainOptions, parse_recipe
from fixres.config.choices import Count
from fixres.config.recipe import Recipe
from fixres.config.stage import Positive
from fixres.errors import UserError, printable

_PROG = "fixres slurm"
_HELP = """Write a Slurm job that trains a recipe, goes back into the queue when its time is up, and goes on.

Every key of the recipe is a flag, as of `fixres train`. What is not asked for here can be given to sbatch itself:
sbatch --qos=high FILE."""
_OWN = ("resume", "dry_run")
_TIME = r"(\d+-)?\d+(:\d\d){0,2}"
_MEMORY = r"\d+[KMGT]?"
_GRES = r"[A-Za-z_]\w*(:[\w.-]+)?"
_WAIT_SECONDS = 300


@dataclass(frozen=True)
class SlurmOptions(TrainOptions):
    """The options of `slurm` that are not part of the recipe."""

    nodes: Positive = 1
    """Machines."""
    gpus_per_node: Count | None = None
    """GPUs, and processes, on each machine; 0: a CPU job."""
    tasks_per_node: Positive | None = None
    """Processes on each machine of a CPU job."""
    cpus_per_task: Positive | None = None
    """Cores of a process, which it shares with its loader; left out: the cluster's default, often 1."""
    mem: str = ""
    """Memory of a machine, for example 64G."""
    time: str = ""
    """Longest time before it is put back into the queue: HH:MM:SS or D-HH:MM:SS."""
    partition: str = ""
    """Partition (queue)."""
    account: str = ""
    """Account to charge."""
    gres: str = "gpu"
    """What the cluster calls its accelerators: gpu, gpu:a100, npu."""
    name: str = ""
    """Name of the job; left out: that of the run folder."""
    signal_seconds: Annotated[int, Field(ge=1, le=65535)] = 120
    """Seconds before the end of its time at which the run is told to save and stop."""
    setup: str = ""
    """Shell commands before the training, for example 'module load cuda'."""
    submit: bool = False
    """Hand the file to sbatch."""
    dry_run: bool = False
    """Print the file in place of writing it."""
    resume: bool = False
    """Always on: a job goes on from the last checkpoint in the run folder."""

    @property
    def num_tasks(self) -> int:
        """Processes on each machine: one per GPU."""
        return self.gpus_per_node or self.tasks_per_node or 1


def slurm(words: Sequence[str]) -> int:
    """`fixres slurm RECIPE --nodes N --gpus-per-node G [--dry-run] [--submit] [--section.key VALUE ...]`."""
    asked = parse_recipe(words, SlurmOptions, _PROG, _HELP)
    options = asked.options
    _check(options)
    _check_batch(asked.recipe, options.nodes * options.num_tasks)
    folder = options.out or Path(asked.recipe.output.dir or default_folder(asked.name, asked.recipe, resume=False))
    # A job may start elsewhere, and much later.
    folder = Path.cwd() / folder
    text = _sbatch_text(options, folder, _command(asked.name, asked.words, folder, options))
    if options.dry_run:
        sys.stdout.write(text)
    else:
        _write(folder, text, submit=options.submit)
    return 0


def _check(options: SlurmOptions) -> None:
    """Raise UserError for options that Slurm would refuse, or that contradict each other."""
    if options.gpus_per_node is None and options.tasks_per_node is None:
        raise UserError(
            "how many GPUs has a machine?\n  --gpus-per-node 4, or for a CPU job --gpus-per-node 0 --tasks-per-node 2"
        )
    if options.gpus_per_node and options.tasks_per_node not in (None, options.gpus_per_node):
        raise UserError(
            f"--tasks-per-node {options.tasks_per_node} with --gpus-per-node {options.gpus_per_node}: there is one"
            " process per GPU\n  leave out --tasks-per-node"
        )
    if options.submit and options.dry_run:
        raise UserError("--submit and --dry-run contradict each other\n  leave one of them out")
    for flag, text, pattern, example in (
        ("--time", options.time, _TIME, "12:00:00 or 2-00:00:00"),
        ("--mem", options.mem, _MEMORY, "64G"),
        ("--gres", options.gres, _GRES, "gpu or gpu:a100"),
    ):
        if text and not re.fullmatch(pattern, text):
            raise UserError(f"{flag}: expected something like {example}, got {text!r}")
    for flag, text in (("name", options.name), ("partition", options.partition), ("account", options.account)):
        if not text.isprintable() or "\\" in text:
            raise UserError(f"--{flag}: expected a name, got {text!r}")


def _check_batch(recipe: Recipe, num_processes: int) -> None:
    for stage in recipe.run_stages:
        below = stage.batch_size - stage.batch_size % num_processes
        if below != stage.batch_size:
            raise UserError(
                f"a batch_size of {stage.batch_size} cannot be shared by {num_processes} processes\n"
                f"  use {max(below, num_processes)} or {max(below, num_processes) + num_processes}"
            )


def _command(name: str, given: dict[str, list[str]], folder: Path, options: SlurmOptions) -> list[str]:
    """Return the words every process runs; with the Python that runs now."""
    words = [sys.executable, "-m", "fixres", "train", *([name] if name else [])]
    for key, values in given.items():
        is_plain = not (len(values) == 1 and (not values[0] or values[0].startswith("-")))
        words += [f"--{key}", *values] if is_plain else [f"--{key}={values[0]}"]
    own = {entry.name: getattr(options, entry.name) for entry in fields(TrainOptions) if entry.name not in _OWN}
    switches = [f"--{name}" for name, value in own.items() if value is True]
    texts = [word for name, value in own.items() if isinstance(value, str) and value for word in (f"--{name}", value)]
    return [*words, "--out", str(folder), "--resume", *switches, *texts]


def _sbatch_text(job: SlurmOptions, folder: Path, command: Sequence[str]) -> str:
    """Return the file that runs `command` in every task and writes its output into the run folder.

    Raises:
        UserError: a folder whose name Slurm cannot be given.
    """
    # An empty text leaves the choice to the cluster.
    chosen = {
        "gres": f"{job.gres}:{job.gpus_per_node}" if job.gpus_per_node else "",
        "cpus-per-task": str(job.cpus_per_task or ""),
        **{name: getattr(job, name) for name in ("mem", "time", "partition", "account")},
    }
    options = [
        f"--job-name={_quoted(job.name or folder.name)}",
        f"--nodes={job.nodes}",
        f"--ntasks-per-node={job.num_tasks}",
        *(f"--{name}={_quoted(text)}" for name, text in chosen.items() if text),
        f"--chdir={_quoted(_writable(Path.cwd()))}",
        # %j is the number of the job; % in a name of the user's is doubled.
        f"--output={_quoted(_writable(folder).replace('%', '%%') + '/slurm-%j.out')}",
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
            f"{shlex.join(srun)} \\\n    {shlex.join(command)} || code=$?",
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


def _write(folder: Path, text: str, submit: bool) -> None:
    file = folder / "job.sbatch"
    try:
        # sbatch gives up on a job whose output has no folder.
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}\n  --out DIR") from None
    _say(f"written: {file}")
    if (folder / "checkpoints" / "last.pt").exists():
        _say("it goes on from the run's last checkpoint")
    else:
        _say("it starts from the beginning: the run folder holds no checkpoint")
    command = ["sbatch", str(file)]
    if submit:
        _say(_submit(command))
        _say(f"output: {folder}/slurm-JOB.out\n  squeue --me")
    else:
        _say(f"  {shlex.join(command)}")


def _say(text: str) -> None:
    # The console of other commands would break a long line on a terminal, and these are copied.
    sys.stderr.write(f"{printable(text)}\n")


def _submit(command: Sequence[str]) -> str:
    typed = f"written, but not submitted\n  {shlex.join(command)}"
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"this machine has no sbatch; {typed}    on one that has") from None
    if answer.returncode:
        raise UserError(f"sbatch refused: {answer.stderr.strip()}\n{typed}")
    return answer.stdout.strip()
