"""Reading a model folder: ours, or any in timm's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from fixres import models
from fixres.checkpoint import read_weights
from fixres.errors import UserError
from fixres.product.value import Product
from fixres.resolution import Preprocess, Resize

_RESIZE_OF_TIMM: dict[str, Resize] = {"center": "shorter", "squash": "squash", "border": "pad"}
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names timm gives the weights beside config.json, the one that is read first in front."""


def load_folder(folder: Path, weights: str, source: str, home: Path | None) -> Product:
    """Load the product in `folder`.

    Args:
        folder: holds config.json and model.safetensors (or pytorch_model.bin).
        weights: `fixed`, or `before_fix`.
        source: what the user gave, to be repeated in messages and recipes.
        home: the folder around it, a run folder when there is a run.

    Raises:
        UserError: the folder is damaged, or the weights do not fit the network it names.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        own = config.get("fixres", {})
        cfg = config["pretrained_cfg"]
        name = config["architecture"]
        classes = tuple(config.get("label_names") or cfg.get("label_names") or ())
        descriptions = config.get("label_descriptions") or cfg.get("label_descriptions") or {}
        train_size = int(cfg["input_size"][-1])
        test_size = int((cfg.get("test_input_size") or cfg["input_size"])[-1])
        num_classes = int(config["num_classes"] if config.get("num_classes") is not None else cfg["num_classes"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} is damaged or not a timm model folder ({error!r})") from error
    if num_classes < 1:
        raise UserError(
            f"{source} holds a network without a classifier\n  fixres import {source} --new-head N --out DIR"
        )
    if not classes and models.is_imagenet(cfg.get("tag") or "", num_classes):
        classes, descriptions = models.imagenet_classes()
    state = _read_state(folder)
    stated = config.get("model_args") or {}
    # timm repeats the number of classes here, and says what is the default.
    model_args = {key: value for key, value in stated.items() if (key, value) != ("in_chans", 3)}
    model_args.pop("num_classes", None)
    label = own.get("weights", "raw")
    if weights == "before_fix":
        if not own.get("before_fix"):
            raise UserError(f"{source} does not hold the tensors from before a fix: it was never fixed")
        state.update(read_weights(folder / own["before_fix"]))
        if "img_size" in model_args:
            model_args["img_size"] = own.get("before_fix_size") or train_size
        label, test_size = "before_fix", train_size
    model = models.build(name, num_classes, model_args)
    models.load_strict(model, state, source)
    return Product(
        model=model.eval(),
        architecture=models.architecture(model),
        classes=classes or tuple(str(i) for i in range(num_classes)),
        preprocess=_preprocess(own, cfg, test_size),
        train_size=train_size,
        weights=label,
        model_args={key: value for key, value in model_args.items() if key != "img_size"},
        has_names=bool(classes),
        details=own,
        source=source + ("#before_fix" if weights == "before_fix" else ""),
        home=home,
        descriptions=descriptions,
    )


def _read_state(folder: Path) -> dict[str, Tensor]:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return read_weights(folder / name)
    raise UserError(f"{folder} has a config.json but no weights\n  expected: {' or '.join(WEIGHT_FILES)}")


def _preprocess(own: dict[str, Any], cfg: dict[str, Any], test_size: int) -> Preprocess:
    return Preprocess(
        size=test_size,
        crop_ratio=float(own.get("crop_ratio") or cfg.get("test_crop_pct") or cfg.get("crop_pct") or 0.875),
        resize=own.get("resize") or _RESIZE_OF_TIMM.get(cfg.get("crop_mode", "center"), "shorter"),
        interpolation="bilinear" if cfg.get("interpolation", "bilinear") == "bilinear" else "bicubic",
        mean=tuple(cfg.get("mean") or (0.485, 0.456, 0.406)),
        std=tuple(cfg.get("std") or (0.229, 0.224, 0.225)),
        exif=own.get("exif", "apply"),
        alpha=own.get("alpha", "white"),
        exact=bool(own.get("exact", False)),
    )
