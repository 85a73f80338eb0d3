"""When a stage is saved, what is saved beside its state, and how it is taken up again."""

from __future__ import annotations

import time
from typing import Any

from fixres.data.bad_images import require_few_bad
from fixres.training.context import Stopwatch, Workshop, picture_lists
from fixres.training.stage_plan import StageRun
from fixres.training.state import TrainState, restore_state, save_state
from fixres.training.throughput_meter import Window


class Keeper:
    """Saves a stage of a run and restores it. All processes take part; the main one writes."""

    def __init__(self, shop: Workshop, run: StageRun, state: TrainState, window: Window, watch: Stopwatch) -> None:
        self.shop, self.run, self.state, self.window, self.watch = shop, run, state, window, watch
        self.bad: list[str] = []
        """Unreadable pictures this process left out."""
        self.told = 0
        """How many of them the log has."""
        self._all_bad: dict[str, None] = {}
        self.is_measured = True
        """False between the last step of an epoch and the end of its measurement."""
        self._splits = picture_lists(shop.collection) if shop.runtime.processes.is_main else {}
        self._saved_step = 0
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Return whether steps or minutes ask for a checkpoint within the epoch."""
        output = self.shop.recipe.output
        if self.state.step == self._saved_step:
            return False
        by_step = output.save_every_steps and self.state.step % output.save_every_steps == 0
        minutes = output.save_every_minutes
        return bool(by_step or (minutes and time.monotonic() - self._saved_at > 60 * minutes))

    def save(self) -> None:
        """Write checkpoints/last.pt, and a copy under its step where the newest are kept."""
        shop, state, runtime = self.shop, self.state, self.shop.runtime
        networks = [state.model] if state.average is None else [state.model, state.average.module]
        ranks = runtime.processes.gather(
            {
                "random": runtime.random_state(),
                "statistics": [{k: v.cpu() for k, v in runtime.own_statistics(one).items()} for one in networks],
                "bad": self.bad,
            }
        )
        with runtime.averaged(*networks):
            if runtime.processes.is_main:
                save_state(
                    state,
                    shop.folder,
                    recipe=shop.recipe_text,
                    classes=shop.collection.classes,
                    metrics_bytes=shop.log.size(),
                    keep_newest=shop.recipe.output.keep_newest,
                    extra={
                        "size": self.run.size,
                        "stage_seconds": self.watch.seconds,
                        "run_seconds": shop.watch.seconds,
                        "ranks": ranks,
                        "losses": self.window.losses,
                        "is_measured": self.is_measured,
                        "splits": self._splits,
                        "micro_batch_asked": runtime.micro_batch,
                    },
                )
        self._saved_step, self._saved_at = state.step, time.monotonic()

    def tell_bad(self) -> None:
        """Log the unreadable pictures that any process has newly left out.

        Raises:
            UserError: all processes together have left out too many.
        """
        found = self.shop.runtime.processes.gather(self.bad[self.told :])
        self.told = len(self.bad)
        names = [name for name in dict.fromkeys(n for names in found for n in names) if name not in self._all_bad]
        self._all_bad |= dict.fromkeys(names)
        if names:
            self.shop.log.event("bad_images", num_bad_images=len(self._all_bad), paths=names)
        require_few_bad(self.shop.collection.split("train"), self.shop.recipe.data.max_bad_images, [*self._all_bad])

    def restore(self, content: dict[str, Any]) -> None:
        """Put the content of last.pt into the freshly begun stage."""
        runtime, state = self.shop.runtime, self.state
        restore_state(state, content)
        self.window.losses = list(content["losses"])
        self.is_measured = content["is_measured"]
        self._saved_step = state.step
        shard, ranks = runtime.processes.shard, content["ranks"]
        self._all_bad = dict.fromkeys(name for rank in ranks for name in rank["bad"])
        if content["micro_batch_asked"] != runtime.micro_batch:
            state.micro_batch = 0
        if len(ranks) == shard.world:
            own = ranks[shard.rank]
            runtime.set_random_state(own["random"])
            self.bad.extend(own["bad"])
            self.told = len(self.bad)
            networks = [state.model] if state.average is None else [state.model, state.average.module]
            for network, statistics in zip(networks, own["statistics"], strict=True):
                buffers = dict(network.named_buffers())
                for name, value in statistics.items():
                    buffers[name].copy_(value)
            return
        # The pictures and their order are the same for any number of processes, the last bits are not.
        state.micro_batch = 0
        text = f"{len(ranks)} processes before, {shard.world} now: the order of the pictures is kept, not every bit"
        self.shop.log.event("note", text=text)
