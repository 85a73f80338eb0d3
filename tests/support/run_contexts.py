"""What the stages of a run share, without a run around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fixres.config.loading import to_yaml
from fixres.config.recipe import Recipe
from fixres.data.collections import open_collection
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime
from fixres.runtime.run_folder import MuteLog
from fixres.training.context import RunContext, Stopwatch


class Told(MuteLog):
    """A log that keeps what it is told in memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.events: list[dict[str, Any]] = []
        self.listeners = (self.events.append,)

    def event(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})


def make_context(recipe: Recipe, folder: Path) -> RunContext:
    """Return the context of a recipe, whose log is `Told`."""
    return RunContext(
        recipe=recipe,
        recipe_text=to_yaml(recipe),
        folder=folder,
        collection=open_collection(recipe.data),
        runtime=Runtime(recipe.runtime),
        preprocess=Preprocess(32),
        log=Told(folder),
        model_args={},
        watch=Stopwatch(),
    )
