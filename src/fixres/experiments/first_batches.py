"""The first batch of every stage and of every measurement of a recipe: what is wrong with it shows at once."""

from __future__ import annotations

import time
from contextlib import closing

from torch import Tensor

from fixres.config.recipe import Recipe
from fixres.data.collections import Collection
from fixres.data.loader import Draw, ReadPolicy, evaluation_batches, train_batches
from fixres.errors import counted
from fixres.resolution import Preprocess
from fixres.training.stage_plan import StagePlan


def first_training_batch(recipe: Recipe, collection: Collection, plan: StagePlan, preprocess: Preprocess) -> str:
    """Read the batch a stage begins with, and return in words what it looks like.

    Raises:
        UserError: a picture of it cannot be read, and the recipe does not leave such pictures out.
    """
    split, policy = collection.split("train"), _policy(recipe)
    bad: list[str] = []
    start = time.perf_counter()
    if plan.stage.solver == "cached":
        evaluated = evaluation_batches(split, (preprocess,), recipe.evaluation.batch_size, policy, bad)
        with closing(evaluated):
            views, labels, _ = next(evaluated, ((), None, None))
        images = views[0] if views else None
    else:
        trained = train_batches(split, plan.stage, preprocess, Draw(recipe.seed, plan.index), policy, bad)
        with closing(trained):
            batch = next(trained)
        images, labels = batch.images, batch.labels
    return _in_words("train", images, labels, bad, time.perf_counter() - start)


def first_measured_batches(recipe: Recipe, collection: Collection, preprocess: Preprocess) -> list[str]:
    """Read the first batch of the splits to select on and to report on, and return in words what they look like.

    Raises:
        UserError: a picture of them cannot be read, and the recipe does not leave such pictures out.
    """
    lines = []
    for name in dict.fromkeys((collection.select, collection.report)):
        bad: list[str] = []
        start = time.perf_counter()
        split, size = collection.split(name), recipe.evaluation.batch_size
        with closing(evaluation_batches(split, (preprocess,), size, _policy(recipe), bad)) as read:
            views, labels, _ = next(read, ((), None, None))
        lines.append(_in_words(name, views[0] if views else None, labels, bad, time.perf_counter() - start))
    return lines


def _policy(recipe: Recipe) -> ReadPolicy:
    # In this process, and not the whole split into memory: one batch is wanted.
    data = recipe.data
    return ReadPolicy(0, data.on_bad_image, data.max_bad_images, data.decode, hold_gib=0.0)


def _in_words(name: str, images: Tensor | None, labels: Tensor | None, bad: list[str], seconds: float) -> str:
    left_out = f", {counted(len(bad), 'picture')} left out ({', '.join(bad[:3])})" if bad else ""
    if images is None or labels is None:
        return f"  first batch of {name}: nothing of it can be read{left_out}"
    shape = ", ".join(map(str, images.shape))
    num_classes = counted(len(set(labels.tolist())), "class", "classes")
    return f"  first batch of {name}: [{shape}], {num_classes}, read in {seconds:.2f} s by one process{left_out}"
