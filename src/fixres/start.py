"""What a run starts from: the network with its weights, and how it is fed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from fixres import checkpoint, legacy, models
from fixres.config import Model, Recipe
from fixres.data.collections import Collection
from fixres.errors import UserError
from fixres.product import Product, load
from fixres.recipes import read_document, validate
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
        model = models.build(settings.name, num_classes, model_args, settings.init)
    elif settings.weights == "pretrained":
        model = models.build(settings.name, num_classes, model_args)
        _load_body(model, models.fetch_pretrained(settings.name), f"the pretrained weights of {settings.name}")
    elif settings.weights.startswith("package:"):
        model = _packaged(settings, num_classes)
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
    """Load model.weights, a run or model folder or a weights file; #before_fix asks for the weights before a fix."""
    source, _, which = settings.weights.partition("#")
    if which not in ("", "before_fix"):
        raise UserError(f"model.weights {settings.weights}: after # only before_fix is allowed")
    product = load(source, which or "fixed", settings.name)
    if product.architecture.split(".")[0] != settings.name.split(".")[0]:
        raise UserError(f"{source} holds '{product.architecture}', the recipe says '{settings.name}'")
    model_args = {**product.model_args, **settings.kwargs}
    if model_args == product.model_args:
        return product
    bound = models.bound_size(product.model)
    size = {} if bound is None else {"img_size": bound}
    model = models.build(product.architecture, len(product.classes), {**model_args, **size})
    models.load_strict(model, product.model.state_dict(), source)
    return replace(product, model=model, model_args=model_args)


def _preprocess(recipe: Recipe, model: nn.Module, product: Product | None) -> Preprocess:
    """Return the test-time preprocessing: the recipe's where it says, else the product's, else the network's."""
    settings, evaluation = recipe.model, recipe.evaluation
    statistics = models.input_statistics(model)
    kept = product.preprocess if product is not None and product.details else None
    interpolation = kept.interpolation if kept else statistics.interpolation
    return Preprocess(
        size=models.default_size(model),
        crop_ratio=evaluation.crop_ratio,
        resize=evaluation.resize,
        interpolation=interpolation if evaluation.interpolation == "model" else evaluation.interpolation,
        mean=(kept.mean if kept else statistics.mean) if settings.mean == "model" else settings.mean,
        std=(kept.std if kept else statistics.std) if settings.std == "model" else settings.std,
        exif=recipe.data.exif,
        alpha=recipe.data.alpha,
        exact=evaluation.exact,
    )


def _load_body(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load everything but the head, which keeps its random weights when the number of classes differs."""
    own = model.state_dict()
    heads = tuple(f"{name}." for name in models.head_names(model))
    for name in own:
        if name.startswith(heads) and name in state and state[name].shape != own[name].shape:
            state[name] = own[name]
    models.load_strict(model, state, source)


def fix_recipe(product: Product, uri: str | None, settings: dict[str, Any], seed: int) -> Recipe:
    """Return the recipe that fixes `product`: no training stage, one fix stage with `settings`.

    The pictures, and how they were cropped in training, come from the recipe of the run the product belongs to when
    it is there.

    Raises:
        UserError: no data given and none stored.
    """
    stored = product.details.get("data", {})
    path = Path(product.source.partition("#")[0]).parent / "recipe.yaml"
    raw: dict[str, Any] = dict(read_document(path).values) if path.exists() else {}
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


def _packaged(settings: Model, num_classes: int) -> nn.Module:
    wanted = models.PACKAGED_WEIGHTS.get(settings.weights)
    if wanted is None:
        raise UserError(f"unknown weights '{settings.weights}'\n  allowed: {', '.join(models.PACKAGED_WEIGHTS)}")
    if settings.name != wanted:
        raise UserError(f"{settings.weights} holds '{wanted}', not '{settings.name}'\n  --model.name {wanted}")
    model = models.build(settings.name, 1000, settings.kwargs)
    state = checkpoint.read_weights(Path(legacy.packaged_lite0_file()))
    models.load_strict(model, legacy.from_lukemelas(state, model, settings.weights), settings.weights)
    models.reset_head(model, num_classes)
    return model
