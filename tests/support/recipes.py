"""Shipped recipes, each read once, and the refusal of a recipe that is wrong."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fixres.config.loading import list_recipes, load
from fixres.config.recipe import Recipe
from fixres.errors import UserError

PUBLISHED_RECIPES = {name: path for name, path in list_recipes().items() if "/" in name}
"""Files of the recipes that are rows of published tables."""


@cache
def recipe_of(name: str) -> Recipe:
    return load(name)


def refusal(file: Path, text: str, overrides: dict[str, Any] | None = None, **options: bool) -> list[str]:
    """Write `text`, load it, and return the lines of the refusal with the folder cut off."""
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load(file, overrides, **options)
    return str(caught.value).replace(f"{file.parent}/", "").splitlines()
