"""What a run starts from: the network with its weights, and how it is fed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from fixres.checkpoints.product import Product
from fixres.checkpoints.resolve import load, released_without_head
from fixres.checkpoints.resolve import which as which_weights
from fixres.checkpoints.source import weights_and_kind
from fixres.checkpoints.weights_file import NoClassifierError, Wanted, load_file
from fixres.config.defaults import CACHED_KEYS
from fixres.config.loading import read_document, validate
from fixres.config.recipe import Model, Recipe
from fixres.config.registry import solved_by
from fixres.data.collections import Collection
from fixres.errors import UserError
from fixres.models.anatomy import load_body
from fixres.models.build import build_model, default_size, load_strict, reset_head
from fixres.models.names import same_architecture
from fixres.models.pretrained import fetch_pretrained, published_preprocess
from fixres.models.released import fetch_released
from fixres.models.sizes import bound_size
from fixres.resolution import Preprocess


class Start(NamedTuple):
    """A network with the weights a run starts from, its test-time preprocessing, and what became of its head."""

    model: nn.Module
    preprocess: Preprocess
    note: str
    model_args: dict[str, Any]
    """What timm.create_model was given beside the name."""
    is_new_head: bool = False
    """Whether the head is a random one."""


def starting_network(recipe: Recipe, collection: Collection) -> Start:
    """Build the network of a recipe with the weights it starts from, and its test-time preprocessing.

    A head for other classes than the collection's is replaced by a random one.

    Raises:
        UserError: unknown model, or weights that do not fit.
    """
    settings = recipe.model
    num_classes = len(collection.classes)
    if settings.num_classes not in ("data", num_classes):
        raise UserError(
            f"model.num_classes {settings.num_classes}, but {collection.uri} has {num_classes}\n"
            "  leave it out: the head follows the data"
        )
    product: Product | None = None
    model_args: Mapping[str, Any] = settings.kwargs
    is_new_head = True
    note = f"the head starts from random weights, for {num_classes} classes"
    if settings.weights == "none":
        note = ""
        zero_init_last = None if settings.zero_init_last == "init" else settings.zero_init_last
        model = build_model(settings.name, num_classes, model_args, settings.init, zero_init_last)
    elif settings.weights == "pretrained":
        model = build_model(settings.name, num_classes, model_args)
        load_body(model, fetch_pretrained(settings.name), f"the pretrained weights of {settings.name}")
    else:
        product, has_none = _load_product(settings, num_classes)
        model, model_args = product.model, product.model_args
        if has_none:
            pass
        elif product.classes == collection.classes:
            # A head on frozen features was random before its fix.
            note, is_new_head = "", product.weights == "before_fix" and bool(product.details.get("new_head"))
        elif (not product.has_names or product.are_names_assumed) and len(product.classes) == num_classes:
            note = "the weights name no classes: their outputs are taken to be the collection's classes in order"
            is_new_head = False
        else:
            reset_head(model, num_classes)
    return Start(model, _preprocess(recipe, model, product), note, dict(model_args), is_new_head)


def _load_product(settings: Model, num_classes: int) -> tuple[Product, bool]:
    """Load model.weights: anything `load` takes; #before_fix, #raw or #ema after it asks for these weights.

    Returns the product and whether its head is new: weights without a classifier, such as MoCo's, get a random one.
    """
    source, which = weights_and_kind(settings.weights)
    if released_without_head(source) is not None:
        path, _ = fetch_released(source.partition(":")[2])
        return load_file(path, _wanted(settings, which, num_classes), source)[0], True
    is_new = False
    try:
        product = load(source, which, _model_name(source, settings.name))
    except NoClassifierError:
        if Path(source).is_file():
            return load_file(Path(source), _wanted(settings, which, num_classes), settings.weights)[0], True
        product, is_new = load(source, which, _model_name(source, settings.name), needs_head=False), True
        reset_head(product.model, num_classes)
    if not same_architecture(product.architecture, settings.name):
        raise UserError(
            f"{source} holds '{product.architecture}', not '{settings.name}'\n  --model.name {product.architecture}"
        )
    model_args = {**product.model_args, **settings.kwargs}
    if model_args == product.model_args:
        return product, is_new
    bound = bound_size(product.model)
    size = {} if bound is None else {"img_size": bound}
    model = build_model(product.architecture, num_classes if is_new else len(product.classes), {**model_args, **size})
    load_strict(model, product.model.state_dict(), source)
    return replace(product, model=model, model_args=model_args), is_new


def _model_name(source: str, name: str) -> str | None:
    """Return the name for bare weights; what knows its own network is compared with the recipe afterwards."""
    return name if Path(source).is_file() or source.startswith("url:") else None


def _wanted(settings: Model, which: str, num_classes: int) -> Wanted:
    return Wanted(settings.name, which_weights(which), new_head=num_classes, model_args=settings.kwargs)


def _preprocess(recipe: Recipe, model: nn.Module, product: Product | None) -> Preprocess:
    """Return the test-time preprocessing: the recipe's where it says, else the product's, else the network's."""
    settings, evaluation = recipe.model, recipe.evaluation
    kept = product.preprocess if product is not None else published_preprocess(model)
    return Preprocess(
        size=default_size(model),
        crop_ratio=evaluation.crop_ratio,
        resize=evaluation.resize,
        interpolation=kept.interpolation if evaluation.interpolation == "model" else evaluation.interpolation,
        mean=kept.mean if settings.mean == "model" else settings.mean,
        std=kept.std if settings.std == "model" else settings.std,
        exif=recipe.data.exif,
        alpha=recipe.data.alpha,
        exact=evaluation.exact,
    )


def fix_recipe(product: Product, uri: str | None, settings: dict[str, Any], seed: int) -> Recipe:
    """Return the recipe that fixes `product`: no training stage, one fix stage with `settings`.

    The pictures, and how they were cropped in training, come from the recipe of the run the product belongs to when
    it is there.

    Raises:
        UserError: no data given and none stored.
    """
    stored = product.details.get("data", {})
    path = product.home / "recipe.yaml" if product.home is not None else None
    raw: dict[str, Any] = dict(read_document(path).values) if path is not None and path.exists() else {}
    data = {**raw.get("data", {}), "uri": uri or stored.get("uri", "")}
    if not data["uri"]:
        raise UserError(f"{product.source} does not say which data it is for\n  --data URI")
    p = product.preprocess
    # Who fixes a product asks for the fixed one.
    evaluation = {**raw.get("evaluation", {}), "ship": "last", "interpolation": p.interpolation}
    # Other pictures, perhaps gone by now or of other classes, were the run's wish.
    evaluation = {key: value for key, value in evaluation.items() if key not in ("also", "corrupt")}
    evaluation |= {"crop_ratio": p.crop_ratio, "resize": p.resize, "exact": p.exact}
    if p.resize in ("squash", "pad"):
        evaluation.pop("crop_ratio")
    own_fix = raw.get("fix") or {}
    if own_fix.get("solver") != "sgd":
        # A part of the pictures was taken for want of time.
        own_fix = {key: value for key, value in own_fix.items() if key != "epoch_samples"}
    # What a training's momentum started from does not belong to a fix of its result.
    raw["optim"] = {key: value for key, value in (raw.get("optim") or {}).items() if key != "state"}
    train = raw.get("train") or (raw.get("stages") or [{}])[0]
    return validate(
        {
            **{key: raw[key] for key in ("optim", "schedule", "loss", "ema", "augment", "runtime") if key in raw},
            "seed": seed,
            "data": {**data, "exif": p.exif, "alpha": p.alpha},
            "model": {
                "name": product.architecture,
                "weights": product.source,
                "kwargs": dict(product.model_args),
                "mean": p.mean,
                "std": p.std,
            },
            "train": {**train, "enabled": False, "size": product.train_size},
            "fix": {**_own_fix(own_fix, settings), **settings, "enabled": True},
            "evaluation": evaluation,
        }
    )


def _own_fix(own: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a new fix keeps of the run's own: not its solver, where what is asked for now decides that."""
    if not own.get("enabled"):
        return {}
    if "solver" in settings:
        return dict(own)
    moves = settings.get("moves", own.get("moves"))
    if set(settings) - CACHED_KEYS or moves not in solved_by("cached"):
        return {**own, "solver": "sgd"}
    return dict(own) if moves in solved_by("sgd") else {**own, "solver": "cached"}
