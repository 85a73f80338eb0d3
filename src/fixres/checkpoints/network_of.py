"""Which network weights are for, where their name says so: what a recipe need not say twice. It imports no torch."""

from __future__ import annotations

import json
from pathlib import Path

from fixres.config.recipe import Recipe


def with_network(recipe: Recipe) -> Recipe:
    """Return the recipe with the network its weights are for, where it names the weights and no network.

    Raises:
        UserError: there are no such weights, or they cannot be fetched.
    """
    settings = recipe.model
    if settings.weights in ("none", "pretrained") or "name" in settings.model_fields_set:
        return recipe
    name = network_of(settings.weights)
    return recipe.model_copy(update={"model": settings.model_copy(update={"name": name})}) if name else recipe


def network_of(source: str) -> str:
    """Return the architecture that a source of weights says it is for; empty for weights that do not say.

    Raises:
        UserError: there is no such release, or a folder of the hub that cannot be fetched.
    """
    scheme, _, rest = source.rpartition("#")[0].partition(":") if _names_kind(source) else source.partition(":")
    if scheme == "timm":
        return rest
    if scheme == "fixres":
        from fixres.models.released import find_released

        return find_released(rest).architecture
    if scheme == "package":
        from fixres.models.pretrained import PACKAGED_WEIGHTS

        return PACKAGED_WEIGHTS.get(f"package:{rest}", "")
    if scheme in ("hf-hub", "hf_hub"):
        from fixres.models.pretrained import fetch_hub_folder

        return _stated(fetch_hub_folder(rest))
    folder = Path(source.rpartition("#")[0] if _names_kind(source) else source)
    return next((name for place in (folder / "model", folder) if (name := _stated(place))), "")


def _names_kind(source: str) -> bool:
    return source.rpartition("#")[2] in ("raw", "ema", "before_fix") and not Path(source).exists()


def _stated(folder: Path) -> str:
    """Return the architecture in config.json of a model folder, empty where none is."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(config.get("architecture") or "") if isinstance(config, dict) else ""
