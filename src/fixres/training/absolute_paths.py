"""The paths a recipe names, made absolute, so that a saved one runs from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fixres.checkpoints.source import weights_and_kind
from fixres.config.recipe import Recipe, Stage
from fixres.data.collections import absolute_uri


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return the recipe with the folders it names made absolute, so that it can be run again from anywhere."""
    weights = _absolute_weights(recipe.model.weights)
    class_weights = recipe.data.class_weights
    if class_weights not in ("none", "auto"):
        class_weights = str(Path(class_weights).absolute())
    state = str(Path(recipe.optim.state).absolute()) if recipe.optim.state else ""
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(
                update={"uri": absolute_uri(recipe.data.uri), "class_weights": class_weights}
            ),
            "model": recipe.model.model_copy(update={"weights": weights}),
            "train": _absolute_stage(recipe.train),
            "fix": _absolute_stage(recipe.fix),
            "stages": tuple(map(_absolute_stage, recipe.stages)),
            "evaluation": recipe.evaluation.model_copy(
                update={"also": tuple(map(absolute_uri, recipe.evaluation.also))}
            ),
            "optim": recipe.optim.model_copy(update={"state": state}),
        }
    )


def _absolute_weights(source: str) -> str:
    path, which = weights_and_kind(source)
    if path in ("", "none", "pretrained") or not Path(path).exists():
        return source
    return str(Path(path).absolute()) + (f"#{which}" if which != "fixed" else "")


def _absolute_stage(stage: Stage) -> Stage:
    changes: dict[str, Any] = {"teacher": _absolute_weights(stage.teacher)} if stage.teacher else {}
    changes |= {"mix_also": tuple(map(absolute_uri, stage.mix_also))} if stage.mix_also else {}
    return stage.model_copy(update=changes) if changes else stage
