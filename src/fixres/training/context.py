"""What the stages of a run share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from fixres.config.recipe import Recipe
from fixres.data.collections import Collection
from fixres.evaluation.evaluate import Evaluation, Reading, evaluate, network_views
from fixres.resolution import Preprocess
from fixres.runtime.cpus import resolve_workers
from fixres.runtime.device import Runtime
from fixres.runtime.run_folder import RunLog


class Stopwatch:
    """Seconds of work, those before an interruption included."""

    def __init__(self, earlier: float = 0.0) -> None:
        self.earlier = earlier
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self.earlier + time.perf_counter() - self.start


@dataclass(frozen=True)
class RunContext:
    """What every stage of a run shares."""

    recipe: Recipe
    recipe_text: str
    folder: Path
    collection: Collection
    runtime: Runtime
    preprocess: Preprocess
    """The test-time preprocessing; stages use it at their own size."""
    log: RunLog
    model_args: Mapping[str, Any]
    """What timm.create_model was given beside the name."""
    watch: Stopwatch
    deadline: float | None = None
    """Of `time.monotonic()`: when a stage by sgd ends after the step it is in."""
    speeds: dict[int, float] = field(default_factory=dict)
    """Pictures a second of the network by size, as they were measured first."""

    @property
    def measures(self) -> bool:
        """Whether pictures are left to measure on: not where a refit trains on all of them."""
        return self.recipe.data.train_on == "train"

    @property
    def reading(self) -> Reading:
        """How evaluations of this run read pictures."""
        data = self.recipe.data
        workers = resolve_workers(data.workers)
        return Reading(self.recipe.evaluation.batch_size, workers, data.on_bad_image)

    def measure(self, model: nn.Module, split: str, sizes: list[int], *, keep_logits: bool = False) -> Evaluation:
        """Evaluate `model` on a split at the given sizes."""

        def report(done: int, total: int) -> None:
            self.log.progress(what=f"measuring on {split}", done=done, total=total)

        views = network_views(model, [self.preprocess.at(size) for size in sizes])
        pictures = self.collection.split(split)
        found = evaluate(views, pictures, self.runtime, self.reading, report, keep_logits=keep_logits)
        self.log.left_out(found.bad_images)
        if found.speed_remarks and not self.speeds:
            self.log.event("speed", text=found.speed_remarks[0])
        for result in found.results:
            # One network at one size has one speed, however often it is measured.
            result["images_per_second"] = self.speeds.setdefault(result["size"], result["images_per_second"])
        return found


def image_lists(collection: Collection) -> dict[str, list[Any]]:
    """Return the length and the hash of the file list of every split: what a resumed run has to find again."""
    return {name: [len(split), split.file_list_hash()] for name, split in collection.splits.items()}
