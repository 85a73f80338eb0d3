"""Train image classifiers small, measure accuracy against size, fix the train-test resolution discrepancy, ship.

Eight verbs do what the commands do: `load`, `train`, `fix`, `evaluate`, `predict`, `advise`, `extract`, `export`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fixres.api import advise, evaluate, export, extract, fix, predict, train
    from fixres.checkpoints.feeding_request import Feeding
    from fixres.checkpoints.product import Product
    from fixres.checkpoints.resolve import load
    from fixres.config.loading import list_recipes
    from fixres.config.recipe import Recipe
    from fixres.data.transform_sets import get_transforms
    from fixres.errors import UserError
    from fixres.inference.predict import Predictor
    from fixres.resolution import Preprocess
    from fixres.training.run import run_recipe

    __version__: str

# Imported when first used: `fixres --help` must not wait for torch, nor a script for what it does not need.
_HOMES = {
    **dict.fromkeys(("advise", "evaluate", "export", "extract", "fix", "predict", "train"), "fixres.api"),
    "Feeding": "fixres.checkpoints.feeding_request",
    "Predictor": "fixres.inference.predict",
    "Preprocess": "fixres.resolution",
    "Product": "fixres.checkpoints.product",
    "Recipe": "fixres.config.recipe",
    "UserError": "fixres.errors",
    "get_transforms": "fixres.data.transform_sets",
    "list_recipes": "fixres.config.loading",
    "load": "fixres.checkpoints.resolve",
    "run_recipe": "fixres.training.run",
}

__all__ = [
    "Feeding",
    "Predictor",
    "Preprocess",
    "Product",
    "Recipe",
    "UserError",
    "__version__",
    "advise",
    "evaluate",
    "export",
    "extract",
    "fix",
    "get_transforms",
    "list_recipes",
    "load",
    "predict",
    "run_recipe",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from fixres.errors import fixres_version

        return fixres_version()
    if name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'fixres' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
