"""`fixres slurm`: a recipe as a job for a cluster."""

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
from fixres.cli.parse import TrainOptions, parse_recipe_with
from fixres.cli.sbatch import Job, sbatch_text
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


def slurm(words: Sequence[str]) -> int:
    """`fixres slurm RECIPE --nodes N --gpus-per-node G [--dry-run] [--submit] [--section.key VALUE ...]`."""
    asked = parse_recipe_with(words, SlurmOptions, _PROG, _HELP)
    options = asked.options
    _check(options)
    tasks_per_node = options.gpus_per_node or options.tasks_per_node or 1
    _check_batch(asked.recipe, options.nodes * tasks_per_node)
    folder = options.out or Path(asked.recipe.output.dir or default_folder(asked.name, asked.recipe, resume=False))
    # A job may start elsewhere, and much later.
    folder = Path.cwd() / folder
    job = Job(
        name=options.name or folder.name,
        command=_command(asked.name, asked.words, folder, options),
        start_folder=Path.cwd(),
        run_folder=folder,
        nodes=options.nodes,
        tasks_per_node=tasks_per_node,
        gres=f"{options.gres}:{options.gpus_per_node}" if options.gpus_per_node else "",
        partition=options.partition,
        account=options.account,
        time=options.time,
        cpus_per_task=options.cpus_per_task,
        mem=options.mem,
        signal_seconds=options.signal_seconds,
        setup=options.setup,
    )
    text = sbatch_text(job)
    if options.dry_run:
        sys.stdout.write(text)
        return 0
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
    # The console of other commands imports PyTorch, which takes long on the shared disk of a login node.
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
