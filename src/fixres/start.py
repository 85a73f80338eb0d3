"""What a run starts from: the network with its weights, and how it is fed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

from fixres import models
from fixres.config import Model, Recipe
from fixres.data.collections import Collection
from fixres.download import fetch_released
from fixres.errors import UserError
from fixres.product import Product, load
from fixres.product.foreign import Wanted, load_file
from fixres.product.sources import WEIGHTS, released_without_head
from fixres.recipes import read_document, validate
from fixres.released import Released
from fixres.resolution import Preprocess


class Start(NamedTuple):
    """A network with the weights a run starts from, its test-time preprocessing, and what became of its head."""

    model: nn.Module
    preprocess: Preprocess
    note: str
    model_args: dict[str, Any]
    """What timm.create_model was given beside the name."""


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
    note = f"the head starts from random weights, for {num_classes} classes"
    if settings.weights == "none":
        note = ""
        zero_init_last = None if settings.zero_init_last == "init" else settings.zero_init_last
        model = models.build(settings.name, num_classes, model_args, settings.init, zero_init_last)
    elif settings.weights == "pretrained":
        model = models.build(settings.name, num_classes, model_args)
        models.load_body(model, models.fetch_pretrained(settings.name), f"the pretrained weights of {settings.name}")
    elif (headless := released_without_head(settings.weights)) is not None:
        model, model_args = _load_headless(settings, headless, num_classes)
    else:
        product = _load_product(settings)
        model, model_args = product.model, product.model_args
        if product.classes == collection.classes:
            note = ""
        elif not product.has_names and len(product.classes) == num_classes:
            note = "the weights name no classes: their outputs are taken to be the collection's classes in order"
        else:
            models.reset_head(model, num_classes)
    return Start(model, _preprocess(recipe, model, product), note, dict(model_args))


def _load_product(settings: Model) -> Product:
    """Load model.weights: anything `load` takes; #before_fix, #raw or #ema after it asks for these weights."""
    source, _, which = settings.weights.rpartition("#")
    if not source or which.startswith("sha256="):
        source, which = settings.weights, "fixed"
    if which not in WEIGHTS:
        raise UserError(f"model.weights {settings.weights}: after # may stand {', '.join(WEIGHTS)}")
    product = load(source, which, settings.name)
    if not models.same_architecture(product.architecture, settings.name):
        raise UserError(
            f"{source} holds '{product.architecture}', not '{settings.name}'\n  --model.name {product.architecture}"
        )
    model_args = {**product.model_args, **settings.kwargs}
    if model_args == product.model_args:
        return product
    bound = models.bound_size(product.model)
    size = {} if bound is None else {"img_size": bound}
    model = models.build(product.architecture, len(product.classes), {**model_args, **size})
    models.load_strict(model, product.model.state_dict(), source)
    return replace(product, model=model, model_args=model_args)


def _load_headless(settings: Model, released: Released, num_classes: int) -> tuple[nn.Module, Mapping[str, Any]]:
    """Load a released network that was trained without classes, for instance MoCo's, with a random head."""
    if not models.same_architecture(released.architecture, settings.name):
        raise UserError(
            f"{settings.weights} holds '{released.architecture}', not '{settings.name}'\n"
            f"  --model.name {released.architecture}"
        )
    path, _ = fetch_released(released.name)
    wanted = Wanted(settings.name, new_head=num_classes, model_args=settings.kwargs)
    return load_file(path, wanted, settings.weights)[0].model, settings.kwargs


def _preprocess(recipe: Recipe, model: nn.Module, product: Product | None) -> Preprocess:
    """Return the test-time preprocessing: the recipe's where it says, else the product's, else the network's."""
    settings, evaluation = recipe.model, recipe.evaluation
    kept = product.preprocess if product is not None else models.published_preprocess(model)
    return Preprocess(
        size=models.default_size(model),
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
    evaluation = {**raw.get("evaluation", {}), "interpolation": p.interpolation}
    evaluation |= {"crop_ratio": p.crop_ratio, "resize": p.resize, "exact": p.exact}
    if p.resize in ("squash", "pad"):
        evaluation.pop("crop_ratio")
    own_fix = raw.get("fix") or {}
    train = raw.get("train") or (raw.get("stages") or [{}])[0]
    return validate(
        {
            **{key: value for key, value in raw.items() if key in ("optim", "schedule", "ema", "augment", "runtime")},
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
            "fix": {**(own_fix if own_fix.get("enabled") else {}), **settings, "enabled": True},
            "evaluation": evaluation,
        }
    )
