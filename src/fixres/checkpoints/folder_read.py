"""Reading a model folder: ours, or any in timm's layout."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fixres.checkpoints.folder_config import Own, Pretrained, read_config
from fixres.checkpoints.product import Product
from fixres.checkpoints.weights_file import NoClassifierError
from fixres.errors import UserError
from fixres.io.tensors import read_weights
from fixres.models.anatomy import load_body
from fixres.models.build import RandomValuesLeftOut, architecture, load_strict
from fixres.models.build_limit import build_for
from fixres.models.pretrained import imagenet_classes, is_imagenet
from fixres.resolution import Preprocess, Resize

_RESIZE_OF_TIMM: dict[str, Resize] = {"center": "shorter", "squash": "squash", "border": "pad"}
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names timm gives the weights beside config.json, the one that is read first in front."""


def load_folder(folder: Path, weights: str, source: str, home: Path | None, new_head: int | None = None) -> Product:
    """Load the product in `folder`.

    Args:
        folder: holds config.json and model.safetensors (or pytorch_model.bin).
        weights: `fixed`, or `before_fix`.
        source: what the user gave, to be repeated in messages and recipes.
        home: the folder around it, a run folder when there is a run.
        new_head: classes of a freshly initialised head, where the network has none.

    Raises:
        UserError: the folder is damaged, or the weights do not fit the network it names.
        NoClassifierError: the network has no classifier, and no new one was asked for.
    """
    config, details = read_config(folder / "config.json")
    own, cfg = config.fixres, config.pretrained_cfg
    has_head = config.classes >= 1
    num_classes = config.classes if has_head else new_head or 0
    if num_classes < 1:
        raise NoClassifierError(
            f"{source} holds a network without a classifier\n  fixres import {source} --new-head N --out DIR"
        )
    classes, descriptions = config.labels, config.descriptions
    if not classes and not details and is_imagenet(cfg.tag or "", num_classes):
        classes, descriptions = imagenet_classes()
    state = _read_state(folder)
    # timm repeats the number of classes here, and says what is the default.
    model_args = {key: value for key, value in config.model_args.items() if (key, value) != ("in_chans", 3)}
    model_args.pop("num_classes", None)
    train_size, test_size = cfg.input_size[-1], (cfg.test_input_size or cfg.input_size)[-1]
    label = own.weights
    heads: dict[int, dict[str, Tensor]] = {}
    notes: tuple[str, ...] = ()
    if own.sizes and weights != "before_fix":
        heads, notes = _read_heads(folder, own, state, (train_size, test_size))
    if weights == "before_fix":
        if not own.before_fix:
            raise UserError(f"{source} does not hold the tensors from before a fix: it was never fixed")
        state.update(read_weights(folder / own.before_fix))
        if "img_size" in model_args:
            model_args["img_size"] = own.before_fix_size or train_size
        label, test_size = "before_fix", train_size
    with RandomValuesLeftOut(has_head):
        model = build_for(state, config.architecture, num_classes, model_args, source)
    (load_strict if has_head else load_body)(model, state, source)
    return Product(
        model=model.eval(),
        architecture=architecture(model),
        classes=classes or tuple(str(i) for i in range(num_classes)),
        preprocess=_preprocess(own, cfg, test_size),
        train_size=train_size,
        weights=label,
        model_args={key: value for key, value in model_args.items() if key != "img_size"},
        has_names=bool(classes),
        details=details,
        source=source + ("#before_fix" if weights == "before_fix" else ""),
        home=home,
        descriptions=descriptions,
        notes=notes,
        heads=heads,
    )


def _read_heads(
    folder: Path, own: Own, state: dict[str, Tensor], sizes: tuple[int, int]
) -> tuple[dict[int, dict[str, Tensor]], tuple[str, ...]]:
    """Return the tensors of every size that has a head of its own, and which of them are not there.

    `sizes`: train and test size, which have theirs from before the fix and from the fix.

    Raises:
        UserError: a file is damaged, or of another network.
    """
    there = {size: folder / entry.file for size, entry in own.sizes.items() if (folder / entry.file).is_file()}
    train_size, test_size = sizes
    is_of_train_size = train_size not in (test_size, *own.sizes) and (own.before_fix_size or train_size) == train_size
    if own.before_fix and (folder / own.before_fix).is_file() and is_of_train_size:
        there[train_size] = folder / own.before_fix
    heads = {size: read_weights(path) for size, path in there.items()}
    for size, tensors in heads.items():
        if unknown := sorted(tensors.keys() - state.keys()):
            raise UserError(f"{there[size]} is of another network: it has no '{unknown[0]}'")
    # From one size's head to another's, every tensor that any of them has is set.
    shared = {name for tensors in heads.values() for name in tensors}
    heads = {size: {name: state[name] for name in shared} | tensors for size, tensors in heads.items()}
    missing = [
        f"{own.sizes[size].file} is missing: {size} px has no head of its own" for size in own.sizes.keys() - heads
    ]
    return heads | ({test_size: {name: state[name] for name in shared}} if heads else {}), tuple(sorted(missing))


def _read_state(folder: Path) -> dict[str, Tensor]:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return read_weights(folder / name)
    raise UserError(f"{folder} has a config.json but no weights\n  expected: {' or '.join(WEIGHT_FILES)}")


def _preprocess(own: Own, cfg: Pretrained, test_size: int) -> Preprocess:
    return Preprocess(
        size=test_size,
        crop_ratio=own.crop_ratio or cfg.test_crop_pct or cfg.crop_pct or 0.875,
        resize=own.resize or _RESIZE_OF_TIMM.get(cfg.crop_mode or "center", "shorter"),
        interpolation="bicubic" if cfg.interpolation in ("bicubic", "random") else "bilinear",
        mean=cfg.mean,
        std=cfg.std,
        exif=own.exif,
        alpha=own.alpha,
        exact=own.exact,
    )
