"""Checkpoints of a stage: what is saved beside its state, and how a stage is taken up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from fixres.runtime.device import set_buffers
from fixres.training.context import image_lists
from fixres.training.state import TrainState, restore_state, save_state

if TYPE_CHECKING:
    from fixres.training.loop import StageTrainer


def save_stage(trainer: StageTrainer) -> None:
    """Write checkpoints/last.pt. All processes take part; the main one writes."""
    context, state, runtime = trainer.context, trainer.state, trainer.context.runtime
    networks = _networks(state)
    ranks = runtime.processes.gather(
        {
            "random": runtime.random_state(),
            "statistics": [{k: v.cpu() for k, v in runtime.own_statistics(one).items()} for one in networks],
            "bad": trainer.bad_images.own,
        }
    )
    with runtime.averaged(*networks):
        if runtime.processes.is_main:
            save_state(
                state,
                context.folder,
                keep_newest=context.recipe.output.keep_newest,
                extra={
                    "recipe": context.recipe_text,
                    "classes": list(context.collection.classes),
                    "metrics_bytes": context.log.size(),
                    "size": trainer.plan.size,
                    "stage_seconds": trainer.watch.seconds,
                    "run_seconds": context.watch.seconds,
                    "ranks": ranks,
                    "losses": trainer.meter.losses,
                    "is_measured": trainer.is_measured,
                    "splits": image_lists(context.collection),
                    "micro_batch_asked": runtime.micro_batch,
                },
            )


def restore_stage(trainer: StageTrainer, content: dict[str, Any]) -> None:
    """Put the content of last.pt into a freshly begun stage."""
    runtime, state = trainer.context.runtime, trainer.state
    restore_state(state, content)
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
        for network, statistics in zip(_networks(state), own["statistics"], strict=True):
            set_buffers(network, statistics)
        return
    # The images and their order are the same for any number of processes, the last bits are not.
    state.micro_batch = 0
    text = f"{len(ranks)} processes before, {shard.world} now: the order of the pictures is kept, not every bit"
    trainer.context.log.event("note", text=text)


def _networks(state: TrainState) -> list[nn.Module]:
    return [state.model] if state.average is None else [state.model, state.average.module]
