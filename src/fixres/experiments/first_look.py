"""A first look at somebody's pictures: how many there are, of what, what is kept to choose on, and what is tried."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fixres.checkpoints.resolve import load
from fixres.config.choices import OnBadImage
from fixres.config.loading import load as load_recipe
from fixres.config.recipe import Recipe
from fixres.data.collections import Collection, open_collection
from fixres.data.decode import BadImage
from fixres.data.progressive_sizes import stage_timeline
from fixres.errors import UserError, counted
from fixres.evaluation.evaluate import Reading
from fixres.experiments.chosen_recipes import SCRATCH
from fixres.experiments.speeds import sizes_for
from fixres.models.build import build_shape
from fixres.models.small_networks import SMALL_NETWORKS, PretrainedNetwork, named_networks
from fixres.models.split_trunk import linear_head
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime
from fixres.training.frozen_features import Views
from fixres.training.probe import MOST
from fixres.training.probe_cells import SIZES

_MANY_SELECTING = 150
"""Pictures to choose on that a small collection gives up to a fifth of its training pictures for."""
_SMALL = 32
"""Side in pixels at which pictures are read that are only to be found readable."""


def holdout_share(collection: Collection) -> float:
    """Return the share of the training pictures to choose on, where it has to be carved out of them.

    A tenth, and more of few: choosing between candidates by 45 pictures is luck.
    """
    num = len(collection.split("train")) + len(collection.split(collection.select))
    return round(min(0.2, max(0.1, _MANY_SELECTING / num)), 3)


def look(collection: Collection, minutes: float) -> str:
    """Return what is there and what will be done with it, for people."""
    num = {name: len(split) for name, split in collection.splits.items()}
    counts = collection.split("train").counts()
    uneven = f", from {counts.min():,} to {counts.max():,} a class" if counts.min() < counts.max() else ""
    classes = counted(len(collection.classes), "class", "classes")
    return (
        f"{collection.uri} holds {counted(sum(num.values()), 'picture')} of {classes}; "
        f"{num['train']:,} to train on{uneven}; "
        f"{num[collection.select]:,} to choose on ({collection.select}), "
        f"{num[collection.report]:,} to report on ({collection.report})\n"
        f"within {minutes:g} min: networks and sizes are tried on frozen features, the one that pays is trained and "
        "fixed, and the best of all ships"
    )


def require_readable(collection: Collection, reading: Reading, runtime: Runtime) -> None:
    """Read once, small, what the probe does not: the first pictures to choose and to report on, up to `MOST` of each.

    Else one that cannot be read is found when the minutes are spent. Where such are skipped there is nothing to find.

    Raises:
        UserError: a picture cannot be read.
        Stopped: a signal came.
    """
    if reading.on_bad_image != "error":
        return
    for name in dict.fromkeys((collection.select, collection.report)):
        split = collection.split(name)
        if name != "train" and len(split):
            Views(split.take(name, np.arange(min(MOST, len(split)))), reading, runtime).decode([Preprocess(_SMALL)])


def what_is_tried(uri: str, minutes: float, models: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Return what `train_pictures` would do, without beginning it, after reading the first pictures of every split.

    Raises:
        UserError: as `train_pictures` would raise it at its beginning.
    """
    recipe = load_recipe(None, {**settings, "data.uri": uri}, require_data=True)
    collection = open_collection(recipe.data)
    networks = networks_to_try(models)
    _require_first(collection, recipe.data.on_bad_image)
    names = ", ".join(network.label for network in networks) or f"{SCRATCH} from random weights"
    sizes = ", ".join(map(str, SIZES))
    return [look(collection, minutes), f"networks: {names}\n  sizes to try, as far as the time goes: {sizes} px"]


def _require_first(collection: Collection, on_bad_image: OnBadImage) -> None:
    """Read the first pictures of every split.

    Raises:
        UserError: one cannot be read, and is not to be skipped.
    """
    for split in collection.splits.values():
        for place in range(min(_SMALL, len(split))):
            try:
                split.read(place)
            except BadImage as error:
                if on_bad_image == "error":
                    raise UserError(f"{error}\n  leave such pictures out: --data.on_bad_image skip") from None


def networks_to_try(names: Sequence[str]) -> tuple[PretrainedNetwork, ...]:
    """Return the networks to try: those named, of which checkpoints of one's own may be some, or those on this disk.

    Raises:
        UserError: an unknown name, weights that are not there, or a head that no solved one can take the place of.
    """
    if not names:
        return tuple(network for network in SMALL_NETWORKS if network.is_on_disk)
    found: list[PretrainedNetwork] = []
    for name in names:
        if Path(name).exists() or name.startswith(("hf-hub:", "fixres:")):
            product = load(name, needs_head=False)
            found.append(PretrainedNetwork(product.architecture, product.source))
        else:
            found += named_networks([name])
        try:
            linear_head(build_shape(found[-1].name, 2))
        except UserError as error:
            what = str(error).splitlines()[0].rpartition(": ")[2]
            raise UserError(
                f"{name} cannot be probed, since its head is more than one linear layer: {what}\n"
                f"  name others, or train it by a recipe: fixres train --data.uri PHOTOS --model.name {found[-1].name}"
            ) from None
    return tuple(dict.fromkeys(found))


def require_trainable(
    networks: Sequence[PretrainedNetwork], recipe: Recipe, decided: Container[str], collection: Collection
) -> None:
    """Refuse what is decided already where no training could be so, before anything is tried.

    Args:
        networks: those that will be tried.
        recipe: what is decided, and for the rest the defaults.
        decided: keys of what is decided.
        collection: the pictures.

    Raises:
        UserError: a batch larger than the training split, or a size that one of the networks cannot take.
    """
    size = recipe.train.size if isinstance(recipe.train.size, int) else _SMALL
    stage_timeline(collection.split("train"), recipe.train, size, seed=recipe.seed, stage_index=0)
    for network in networks if "train.size" in decided else ():
        nearest = sizes_for(network.name, size)
        if nearest != [size]:
            instead = f"give {nearest[0]}" if nearest else "leave it out"
            raise UserError(
                f"train.size {size}: {network.name} cannot take it\n  {instead}, or name others with --models"
            )
