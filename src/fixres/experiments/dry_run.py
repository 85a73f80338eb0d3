"""What a run would do, without doing it."""

from __future__ import annotations

import torch

from fixres.config.recipe import Recipe
from fixres.data.collections import open_collection
from fixres.models.sizes import at_size, gmacs
from fixres.training.context import describe_stage
from fixres.training.initial_weights import starting_network


def dry_run(recipe: Recipe) -> list[str]:
    """Return what a run would do: data, plan, steps, cost and the shape of the first batch; nothing is written."""
    collection = open_collection(recipe.data)
    torch.manual_seed(recipe.seed)
    model = starting_network(recipe, collection).model
    counts = ", ".join(f"{name} {len(split):,}" for name, split in collection.splits.items())
    lines = [f"{collection.uri}: {counts}", *(f"note: {note}" for note in collection.notes)]
    for index, stage in enumerate(recipe.run_stages):
        size = recipe.train.size if stage.size == "auto" else stage.size
        assert isinstance(size, int), "training stages have a size"
        run = describe_stage(recipe, collection, model, index, size)
        forward = gmacs(at_size(model, size), size)
        # A backward pass costs about two forward ones.
        total = (1 if run.plan.is_trunk_frozen else 3) * forward * run.total_steps * stage.batch_size / 1000
        when = " (size chosen when the stage starts)" if stage.size == "auto" else ""
        if run.note:
            lines.append(f"note: {run.note}")
        if run.stage.solver == "cached":
            num = len(collection.split("train")) * stage.views
            lines += [
                f"stage {run.name}: {run.plan.describe()}",
                f"  cached: {num:,} pictures of [3, {size}, {size}] through the trunk once{when}, "
                f"about {forward * num / 1000:,.1f} teraMACs ({forward:.3f} GMACs a forward pass)",
            ]
            continue
        lines += [
            f"stage {run.name}: {run.plan.describe()}",
            f"  {run.total_steps:,} steps of [{stage.batch_size}, 3, {size}, {size}]{when}, "
            f"about {total:,.1f} teraMACs ({forward:.3f} GMACs a forward pass)",
        ]
    return lines
