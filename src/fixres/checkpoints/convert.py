"""Any checkpoint to a model folder: what is in it is said, loaded strictly, and written in timm's layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fixres.checkpoints.feeding import says_itself
from fixres.checkpoints.feeding_request import CHANGES, Feeding
from fixres.checkpoints.folder_write import save_product
from fixres.checkpoints.foreign.fit import named_optimizer_state
from fixres.checkpoints.foreign.layouts import Found
from fixres.checkpoints.import_request import ImportRequest
from fixres.checkpoints.product import MEASURED, Product, Sheet, SizeHead
from fixres.checkpoints.resolve import (
    fetch,
    load,
    load_published,
    load_released,
    model_for,
    require_classifier,
    require_weights,
    which,
)
from fixres.checkpoints.source import is_elsewhere, named_weights, require_file
from fixres.checkpoints.weights_file import Wanted, load_file, with_feeding
from fixres.errors import UserError
from fixres.io.tensors import read_weights, write_weights
from fixres.models.build import reset_head
from fixres.models.names import canonical
from fixres.models.pretrained import imagenet_classes
from fixres.models.released import Released, fetch_released, find_released
from fixres.models.sizes import at_size

OPTIMIZER_FILE = "optimizer.safetensors"
"""Optimizer state by parameter name, beside an imported model."""


def import_weights(request: ImportRequest) -> tuple[Product, list[str]]:
    """Write `request.out` and return the product with notes for people: what was found, taken and left out.

    Raises:
        UserError: the folder is in use, or anything about the weights is not as it should be; nothing is written then.
    """
    _require_new(request.out)
    source, weights = named_weights(request.source, request.weights)
    request = replace(request, source=source, weights=weights)
    released = _released(request.source)
    torch.manual_seed(request.seed)
    product, found = _load(request, released)
    product = _fed(product, request)
    if request.classes is not None:
        product = _named(product, request.classes)
    named_state = _optimizer_state(request, product, found)
    licence = request.license or (released.license if released is not None else "")
    sheet = Sheet(
        classes=product.classes,
        preprocess=product.preprocess,
        train_size=product.train_size,
        moves=str(product.details.get("moves", "nothing")),
        weights=product.weights,
        results=product.details.get("results", ()),
        evaluation=product.details.get("evaluation", {}),
        data={**product.details.get("data", {}), "weights": _origin(request), "weights_license": licence},
        model_args=product.model_args,
        seed=request.seed,
        before_size=product.details.get("before_fix_size"),
        has_names=product.has_names,
        descriptions=product.descriptions,
        promises=product.details.get("promises", {}),
        cascade=product.details.get("cascade", {}),
        heads=_heads(product),
        has_new_head=bool(product.details.get("new_head")),
    )
    save_product(request.out, product.model, sheet, _before_fix(product))
    if named_state is not None:
        write_weights(request.out / OPTIMIZER_FILE, named_state)
    notes = list(product.notes)
    if licence:
        notes.append(f"licence of the weights: {licence}")
    if named_state is not None:
        notes.append(f"the optimizer's state, {len(named_state)} tensors by parameter name, is in {OPTIMIZER_FILE}")
    elif found is not None and found.optimizer is not None:
        notes.append("left out the optimizer's state (--optimizer keeps it)")
    return product, notes


def _require_new(out: Path) -> None:
    try:
        is_used = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}\n  give another folder: --out DIR") from error
    if is_used:
        raise UserError(f"{out} exists and is not empty\n  give a new folder: --out DIR")


def _fed(product: Product, request: ImportRequest) -> Product:
    """Return the product fed as asked for, after checking that the network runs at both of its sizes.

    What was measured under other conditions is left out, and so is what a fix moved at another size.
    """
    sized = product if request.size is None else product.at(request.size)
    fed = with_feeding(sized, **{name: getattr(request, name) for name in CHANGES})
    fed = replace(fed, train_size=request.train_size or fed.train_size)
    at_size(fed.model, fed.preprocess.size)
    at_size(fed.model, fed.train_size)
    if fed.preprocess == product.preprocess or not fed.details:
        return fed
    kept = {key: value for key, value in fed.details.items() if key not in MEASURED}
    return replace(fed, details=kept, notes=(*fed.notes, "left out the measurements: they are of another feeding"))


def _heads(product: Product) -> dict[int, SizeHead]:
    """Return the further sizes that have a head of their own, with what each reached."""
    further = (size for size in product.heads if size != product.preprocess.size and not product.is_before_fix(size))
    own = {size: product.heads[size] for size in further}
    told = product.details.get("sizes", {}) if "results" in product.details else {}
    results = {size: {k: v for k, v in told.get(str(size), {}).items() if k != "file"} for size in own}
    return {size: SizeHead(tensors, results[size]) for size, tensors in own.items()}


def _before_fix(product: Product) -> dict[str, Tensor] | None:
    """Return what a fix moved, as it was before, when the source is a folder that holds it."""
    name = product.details.get("before_fix")
    folder = Path(product.source)
    return read_weights(folder / name) if name and (folder / name).is_file() else None


def _released(source: str) -> Released | None:
    return find_released(source.removeprefix("fixres:")) if source.startswith("fixres:") else None


def _load(request: ImportRequest, released: Released | None) -> tuple[Product, Found | None]:
    """Load the weights; foreign files come with what they were found to be."""
    path = Path(request.source)
    is_published = request.source.startswith("timm:") and request.weights == "fixed"
    if request.fed_as is not None and (released is not None or is_published):
        raise says_itself(request.source)
    if released is not None:
        require_weights(released)
        if request.new_head is None:
            require_classifier(released)
        path, _ = fetch_released(released.name)
        if not (request.new_head or request.model or request.trust):
            return load_released(path, released, which(request.weights)), None
    elif request.source.startswith("url:"):
        path = fetch(request.source, request.model)
    elif request.source.startswith(("https:", "http:")):
        raise UserError(f"{request.source} is an address; to fetch weights from it\n  url:{request.source}")
    elif is_published and request.new_head:
        name = canonical(request.source.removeprefix("timm:"))
        return replace(load_published(name, request.new_head), notes=(_new_head_note(request.new_head),)), None
    elif is_elsewhere(request.source) or path.is_dir() or path.name == "config.json":
        return _with_new_head(load(request.source, request.weights, request.model, _fed_as(request)), request), None
    else:
        require_file(request.source)
    wanted = Wanted(
        model_for(request.source, request.model or (released.architecture if released is not None else None)),
        which(request.weights),
        new_head=request.new_head,
        trust=request.trust,
        model_args={"img_size": request.grid_size} if request.grid_size else {},
        train_size=released.train_size if released is not None else None,
        feeding=_fed_as(request),
    )
    return load_file(path, wanted, request.source)


def _fed_as(request: ImportRequest) -> Feeding:
    """Return which program feeds the weights; changes of single settings come later, with the size."""
    return Feeding(fed_as=request.fed_as)


def _with_new_head(product: Product, request: ImportRequest) -> Product:
    if request.new_head is None:
        return product
    reset_head(product.model, request.new_head)
    return replace(
        product,
        classes=tuple(str(i) for i in range(request.new_head)),
        has_names=False,
        descriptions={},
        details={},
        heads={},
        notes=(*product.notes, _new_head_note(request.new_head)),
    )


def _new_head_note(num_classes: int) -> str:
    return f"the head starts from random weights, for {num_classes} classes"


def _origin(request: ImportRequest) -> str:
    return request.source if is_elsewhere(request.source) else Path(request.source).name


def _named(product: Product, text: str) -> Product:
    """Give the outputs names from a file, or those of ImageNet-1k.

    Raises:
        UserError: the file cannot be read, names a class twice, or has another number of names.
    """
    descriptions: Mapping[str, str] = {}
    if text == "imagenet":
        names, descriptions = imagenet_classes()
    else:
        names = _read_names(Path(text))
    if len(names) != len(product.classes):
        raise UserError(f"{text} has {len(names)} class names, the network {len(product.classes)} outputs")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{text} names a class twice: {', '.join(twice[:4])}")
    return replace(product, classes=names, has_names=True, descriptions=descriptions)


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() != ".json":
            return tuple(line.strip() for line in text.splitlines() if line.strip())
        content = json.loads(text)
        if isinstance(content, list) and all(isinstance(name, str) for name in content):
            return tuple(content)
        names = tuple(content[str(index)] for index in range(len(content)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"cannot read class names from {path} ({error})\n"
            '  one name per line, a JSON list, a JSON object {"0": NAME, "1": NAME, ...}, or the word imagenet'
        ) from error
    if not all(isinstance(name, str) for name in names):
        raise UserError(f'{path}: every class needs one name, {{"0": NAME, "1": NAME, ...}}')
    return names


def _optimizer_state(request: ImportRequest, product: Product, found: Found | None) -> dict[str, Tensor] | None:
    """Return the optimizer's state by parameter name.

    Raises:
        UserError: there is none, or its order cannot be known.
    """
    if not request.optimizer:
        return None
    if found is None or found.optimizer is None:
        raise UserError(f"{request.source} holds no optimizer state\n  leave --optimizer out")
    if request.new_head is not None:
        raise UserError("--optimizer and --new-head exclude each other: the old head's state does not fit the new one")
    if product.weights == "ema":
        raise UserError("the optimizer's state belongs to the raw weights\n  --weights raw")
    shapes = {name: tuple(p.shape) for name, p in product.model.named_parameters()}
    return named_optimizer_state(found, shapes)
