"""Train image classifiers small, measure accuracy against size, fix the train-test resolution discrepancy, ship."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fixres.config import Recipe
    from fixres.errors import UserError
    from fixres.predict import Predictor
    from fixres.product import Product, load
    from fixres.recipes import list_recipes
    from fixres.resolution import Preprocess
    from fixres.run import run_recipe
    from fixres.transform_sets import get_transforms

    __version__: str

# Imported when first used: `fixres --help` must not wait for torch, nor a script for what it does not need.
_HOMES = {
    "Predictor": "fixres.predict",
    "Preprocess": "fixres.resolution",
    "Product": "fixres.product",
    "Recipe": "fixres.config",
    "UserError": "fixres.errors",
    "get_transforms": "fixres.transform_sets",
    "list_recipes": "fixres.recipes",
    "load": "fixres.product",
    "run_recipe": "fixres.run",
}

__all__ = [
    "Predictor",
    "Preprocess",
    "Product",
    "Recipe",
    "UserError",
    "__version__",
    "get_transforms",
    "list_recipes",
    "load",
    "run_recipe",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("fixres")
        except PackageNotFoundError:  # a checkout that was never installed, as torch.hub makes
            return "0+checkout"
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fixres' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
