"""Resumable state of a stage: what is saved, whole and without code, and how a stage is taken up again."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fixres.errors import UserError, counted
from fixres.evaluation.selection import Figures, is_as_good, is_better
from fixres.io.files import write_with
from fixres.io.safe_load import read_checkpoint
from fixres.io.tensors import copy_state
from fixres.runtime.device import set_buffers
from fixres.training.context import image_lists
from fixres.training.optim import WeightAverage

if TYPE_CHECKING:
    from fixres.training.loop import StageTrainer

FORMAT = 2
_AS_IT_IS = (
    *("stage_index", "step", "best_top1", "best_loss", "best_step", "best_weights", "micro_batch"),
    *("may_select_by_loss", "lowest_loss", "lowest_losses", "progress_step"),
)
"""What is saved as it is."""
_OF_EARLIER_VERSIONS: dict[str, Any] = {
    "best_loss": -math.inf,
    "may_select_by_loss": False,
    "lowest_loss": math.inf,
    "lowest_losses": None,
    "progress_step": 0,
}
"""What states of earlier versions lack: their stages end by the rule they began with, the first, or the one with the
lower loss, of equal accuracies."""


@dataclass
class TrainState:
    """Everything a stage needs to go on as if it had never stopped."""

    model: nn.Module
    """The bare network, never a wrapper."""
    optimizer: Any
    average: WeightAverage | None = None
    scaler: Any = None
    teacher: Any = None
    """What the stage learns from beside the labels; not saved, since it does not change."""
    stage_index: int = 0
    step: int = 0
    """Optimizer updates done in this stage."""
    best_top1: float = -1.0
    """Best top-1 in percent on the selecting split, of the weights that would ship."""
    best_loss: float = math.inf
    """Loss of the same weights there."""
    may_select_by_loss: bool = True
    """Whether the loss decides where selecting pictures are few; not in a stage of an earlier version."""
    lowest_loss: float = math.inf
    """The lowest loss so far, where it decides."""
    lowest_losses: Tensor | None = None
    """The same by picture, float64 `[N]`."""
    progress_step: int = 0
    """Step of the last measurement that was better than all before it."""
    best_step: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    micro_batch: int = 0
    """Pictures per forward pass of a process; 0 before it is decided."""

    def keep_if_better(self, found: Figures, *, always: bool = False) -> None:
        """Copy the weights that would ship where the selecting split speaks for them, by `evaluation.selection`."""
        best = Figures(self.best_top1, self.best_loss)
        if found.losses is not None:
            lowest = None if self.lowest_losses is None else self.lowest_losses.numpy()
            best = Figures(self.best_top1, self.lowest_loss, losses=lowest)
        is_progress = not self.best_weights or is_better(found, best)
        if is_progress:
            self.progress_step = self.step
        if is_progress and found.losses is not None:
            self.lowest_loss, self.lowest_losses = found.loss, torch.from_numpy(found.losses).double()
        if always or is_progress or is_as_good(found, best):
            self.best_top1, self.best_loss, self.best_step = found.top1, found.loss, self.step
            self.best_weights = copy_state(self.shipped)

    @property
    def shipped(self) -> nn.Module:
        """The network whose weights would ship: the average where one is kept."""
        return self.average.module if self.average is not None else self.model

    def parts(self) -> dict[str, Any]:
        """Return what has a state dict of its own, by the name it is saved under; None where the stage has none."""
        average = None if self.average is None else self.average.module
        return {"model": self.model, "average": average, "optimizer": self.optimizer, "scaler": self.scaler}

    @property
    def networks(self) -> list[nn.Module]:
        """The network, and the average where one is kept."""
        return [self.model] if self.average is None else [self.model, self.average.module]

    @property
    def shipped_label(self) -> str:
        """`ema` or `raw`."""
        return "ema" if self.average is not None else "raw"


def save_stage(trainer: StageTrainer) -> None:
    """Write checkpoints/last.pt. All processes take part; the main one writes."""
    context, state, runtime = trainer.context, trainer.state, trainer.context.runtime
    networks = state.networks
    ranks = runtime.processes.gather(
        {
            "random": runtime.random_state(),
            "statistics": [{k: v.cpu() for k, v in runtime.own_statistics(one).items()} for one in networks],
            "bad": trainer.bad_images.own,
        }
    )
    with runtime.averaged(*networks):
        if runtime.processes.is_main:
            context.log.require_writer()
            save_state(
                state,
                context.folder,
                keep_newest=context.recipe.output.keep_newest,
                extra={
                    "recipe": context.recipe_text,
                    "classes": list(context.collection.classes),
                    "metrics_bytes": context.log.size(),
                    "size": trainer.plan.size,
                    "preprocess": asdict(context.preprocess.at(trainer.plan.size)),
                    "stage_seconds": trainer.watch.seconds,
                    "run_seconds": context.watch.seconds,
                    "ranks": ranks,
                    "losses": trainer.meter.losses,
                    "is_measured": trainer.is_measured,
                    "is_out_of_time": trainer.is_out_of_time,
                    "splits": image_lists(context.collection),
                    "micro_batch_asked": runtime.micro_batch,
                },
            )


def save_state(state: TrainState, folder: Path, *, extra: dict[str, Any], keep_newest: int = 0) -> None:
    """Write RUN/checkpoints/last.pt atomically; `extra` is what the run wants to find again beside the state.

    With `keep_newest` the file is also kept as step-STAGE-STEP.pt, and of these no more than that many.
    """
    content = {
        "format": FORMAT,
        **{name: getattr(state, name) for name in _AS_IT_IS},
        **{name: None if part is None else part.state_dict() for name, part in state.parts().items()},
        **extra,
    }
    last = folder / "checkpoints" / "last.pt"
    write_with(last, lambda path: torch.save(content, path))
    if keep_newest:
        write_with(last.with_name(f"step-{state.stage_index + 1}-{state.step}.pt"), lambda path: _same_file(last, path))
        for path in _kept(last.parent)[:-keep_newest]:
            path.unlink(missing_ok=True)


def _kept(folder: Path) -> list[Path]:
    """Return the checkpoints kept under their step, the oldest first; other files that users put there are not ours."""
    found = {path: re.fullmatch(r"step-(\d+)-(\d+)\.pt", path.name) for path in folder.glob("step-*-*.pt")}
    return sorted((path for path, ours in found.items() if ours), key=lambda path: _places(path.stem))


def _places(stem: str) -> list[int]:
    return [int(number) for number in stem.split("-")[1:]]


def _same_file(source: Path, target: Path) -> None:
    """Make `target` the file `source` is now, without a second copy where the disk can do so."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return the content of RUN/checkpoints/last.pt, or None when there is none.

    Raises:
        UserError: the file cannot be read, or another version of fixres wrote it.
    """
    path = folder / "checkpoints" / "last.pt"
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = read_checkpoint(path)
    except UserError as error:
        older = _kept(path.parent)
        use = f"copy {older[-1]} over it, or " if older else ""
        raise UserError(f"{error}\n  {use}start again in another folder with --out") from error
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path} was written by another version of fixres, whose runs this one cannot resume\n"
            f"  its weights can be used: --model.weights {path}#raw; or start again in another folder with --out"
        )
    return content


def restore_stage(trainer: StageTrainer, content: dict[str, Any]) -> None:
    """Put the content of last.pt into a freshly begun stage, which is the same one."""
    runtime, state = trainer.context.runtime, trainer.state
    for name, part in state.parts().items():
        if part is not None and content[name] is not None:
            part.load_state_dict(content[name])
    for name in _AS_IT_IS:
        is_missing = name in _OF_EARLIER_VERSIONS and name not in content
        setattr(state, name, _OF_EARLIER_VERSIONS[name] if is_missing else content[name])
    trainer.watch.earlier = content["stage_seconds"]
    trainer.meter.losses = list(content["losses"])
    trainer.is_measured = content["is_measured"]
    shard, ranks = runtime.processes.shard, content["ranks"]
    trainer.bad_images.restore_all([name for rank in ranks for name in rank["bad"]])
    if content["micro_batch_asked"] != runtime.micro_batch:
        state.micro_batch = 0
    if len(ranks) == shard.world:
        own = ranks[shard.rank]
        runtime.set_random_state(own["random"])
        trainer.bad_images.restore_own(own["bad"])
        for network, statistics in zip(state.networks, own["statistics"], strict=True):
            set_buffers(network, statistics)
        return
    # The images and their order are the same for any number of processes, the last bits are not.
    state.micro_batch = 0
    before, now = (counted(num, "process", "processes") for num in (len(ranks), shard.world))
    text = f"begun on {before}, now on {now}: the same pictures in the same order, but the last digits may differ"
    trainer.context.log.event("note", text=text)
