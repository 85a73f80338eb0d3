"""Train image classifiers small, measure accuracy against size, fix the train-test resolution discrepancy, ship."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fixres.config import Recipe
    from fixres.errors import UserError
    from fixres.recipes import list_recipes
    from fixres.resolution import Preprocess

    __version__: str

# Imported when first used: `fixres --help` must not wait for torch, nor a script for what it does not need.
_HOMES = {
    "Preprocess": "fixres.resolution",
    "Recipe": "fixres.config",
    "UserError": "fixres.errors",
    "list_recipes": "fixres.recipes",
}

__all__ = ["Preprocess", "Recipe", "UserError", "__version__", "list_recipes"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("fixres")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fixres' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
