"""Every way to name a checkpoint: folders, files, and weights that lie somewhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from fixres.checkpoints.feeding import changed, differences, says_itself
from fixres.checkpoints.feeding_request import Feeding, PreprocessChanges
from fixres.checkpoints.folder_read import load_folder
from fixres.checkpoints.product import MEASURED, Product
from fixres.checkpoints.source import is_bare, named_weights, product_folder, weights_and_kind
from fixres.checkpoints.weights_file import NoClassifierError, Wanted, load_file
from fixres.errors import UserError, require_extra
from fixres.io.download import cache
from fixres.io.download.address import parse_url
from fixres.io.download.transfer import Progress
from fixres.models.anatomy import head_names, load_body
from fixres.models.build import RandomValuesLeftOut, architecture, build_model, default_size, load_strict
from fixres.models.names import canonical, same_architecture
from fixres.models.pretrained import (
    PACKAGED_WEIGHTS,
    fetch_hub_folder,
    fetch_pretrained,
    imagenet_classes,
    is_imagenet,
    package_of,
    packaged_file,
    published_classes,
    published_preprocess,
    published_tag,
)
from fixres.models.released import RELEASED, Released, fetch_released, find_released
from fixres.resolution import Preprocess

WEIGHTS = ("fixed", "before_fix", "raw", "ema")
"""What may stand for --weights."""
_AS_IT_SAYS = Feeding()


def load(
    source: str | Path,
    weights: str = "fixed",
    model_name: str | None = None,
    feeding: Feeding = _AS_IT_SAYS,
    *,
    needs_head: bool = True,
) -> Product:
    """Load a product.

    Args:
        source: a run folder or model folder; a weights file together with `model_name`; `timm:NAME`, `hf-hub:NAME`,
            `fixres:NAME` (the released weights), `url:https://...#sha256=HEX` with `model_name`, or
            `package:efficientnet-lite0`. `#raw`, `#ema` or `#before_fix` after it is the same as `weights`.
        weights: `fixed` (what ships) or `before_fix` for folders; `raw` or `ema` for training checkpoints; a weights
            file for `timm:NAME`.
        model_name: architecture of bare weights.
        feeding: which program a bare weights file is fed as, and settings of the preprocessing to change.
        needs_head: refuse weights without a classifier; otherwise they get one of zeros, and `has_head` is false.

    Raises:
        UserError: there is nothing to load, it cannot be fetched, or it does not fit; or what says itself how it is fed
            is to be fed as by some program.
    """
    text, weights = named_weights(str(source), weights)
    if text.startswith(("http:", "https:")):
        raise UserError(f"{text} is an address; to fetch weights from it\n  url:{text} --model NAME")
    try:
        product, is_bare = _load(text, weights, model_name, feeding)
    except NoClassifierError:
        if needs_head:
            raise
        product, is_bare = _load(text, weights, model_name, feeding, new_head=1)
        product = _without_head(product)
    if model_name is not None and not same_architecture(product.architecture, model_name):
        raise UserError(f"{text} holds '{product.architecture}', not '{model_name}'\n  leave --model out")
    if is_bare:
        return product
    if feeding.fed_as is not None:
        raise says_itself(text)
    return _fed_otherwise(product, feeding)


def _without_head(product: Product) -> Product:
    """Return the product with zeros in place of its head, which was drawn: the same weights are the same network."""
    for name in head_names(product.model):
        for tensor in product.model.get_submodule(name).parameters():
            torch.nn.init.zeros_(tensor)
    notes = tuple(note for note in product.notes if not note.startswith("the head starts from random"))
    return replace(product, has_head=False, has_names=False, notes=notes)


def unfixed(product: Product) -> Product:
    """Return the product as it was trained, where it was fixed: a head fixed for one size says nothing about others."""
    if not product.details.get("before_fix") or product.weights == "before_fix":
        return product
    before = load(product.source, "before_fix")
    return replace(before, preprocess=product.preprocess.at(before.preprocess.size))


def _load(
    text: str, weights: str, model_name: str | None, feeding: Feeding, new_head: int | None = None
) -> tuple[Product, bool]:
    """Return the product, and whether it was made of a bare weights file."""
    scheme, _, rest = text.partition(":")
    if scheme == "timm":
        return _from_timm(rest, weights, feeding, new_head)
    if scheme in ("hf-hub", "hf_hub"):
        return _from_hub(rest, weights, new_head), False
    if scheme == "fixres":
        return _from_released(rest, weights, new_head), False
    if scheme == "package":
        return _from_package(text, weights), False
    path = fetch(text, model_name) if scheme == "url" else Path(text)
    if is_bare(text):
        wanted = Wanted(model_for(text, model_name), which(weights), new_head, feeding=feeding)
        return load_file(path, wanted, text if scheme == "url" else str(path.absolute()))[0], True
    return _from_folder(path.parent if path.is_file() else path, weights, new_head), False


def _fed_otherwise(product: Product, changes: PreprocessChanges) -> Product:
    """Return the product fed as asked for, without the results that were measured as it says itself."""
    asked = changed(product.preprocess, changes)
    if asked == product.preprocess:
        return product
    # The conditions stay: what is measured now, is measured under them.
    left_out = set(MEASURED) - {"evaluation"}
    details = {key: value for key, value in product.details.items() if key not in left_out}
    notes = (*product.notes, *(f"warning: {text}" for text in differences(product.preprocess, asked)))
    return replace(product, preprocess=asked, details=details, notes=notes)


def which(weights: str) -> str | None:
    """Return raw or ema when one of them was asked for by name.

    Raises:
        UserError: `before_fix` of weights that were never fixed here, or an unknown word.
    """
    if weights == "fixed":
        return None
    if weights in ("raw", "ema"):
        return weights
    if weights == "before_fix":
        raise UserError("before_fix: only a folder written by a fix holds the tensors from before it")
    raise UserError(f"weights '{weights}'\n  allowed: {', '.join(WEIGHTS)}")


def model_for(source: str, model_name: str | None) -> str:
    """Return the architecture of bare weights. Raises UserError when none was given."""
    if model_name is None:
        raise UserError(f"{source} is a bare weights file: say which network it is for\n  --model NAME")
    return model_name


def _from_folder(path: Path, weights: str, new_head: int | None) -> Product:
    folder = product_folder(path)
    if weights not in ("fixed", "before_fix"):
        raise UserError(f"{path} is a folder, which holds one set of weights\n  allowed: fixed, before_fix")
    return load_folder(folder, weights, str(folder.absolute()), folder.absolute().parent, new_head)


def _from_timm(name: str, weights: str, feeding: Feeding, new_head: int | None) -> tuple[Product, bool]:
    """Return the product, and whether it was made of a file given for the weights."""
    if weights not in WEIGHTS:
        file, kind = weights_and_kind(weights)
        path = Path(file)
        if not path.is_file():
            raise UserError(f"no such file: {path}\n  --weights takes a file, or {', '.join(WEIGHTS)}")
        wanted = Wanted(name, which(kind), new_head, feeding=feeding)
        return load_file(path, wanted, str(path.absolute()))[0], True
    if weights != "fixed":
        which(weights)
        raise UserError(f"timm:{name} holds one set of weights\n  leave --weights out, or give it a file")
    return load_published(canonical(name), new_head), False


def load_published(name: str, new_head: int | None = None) -> Product:
    """Load the weights timm publishes for an architecture, with a random head of `new_head` classes if asked for.

    Raises:
        UserError: there are none, or they cannot be fetched.
        NoClassifierError: they have no classifier, and none was asked for.
    """
    num_classes = published_classes(name)
    if not num_classes and new_head is None:
        raise NoClassifierError(
            f"the weights of timm:{name} have no classifier\n"
            f"  fixres import timm:{name} --new-head NUMBER_OF_CLASSES --out DIR"
        )
    state = fetch_pretrained(name)
    with RandomValuesLeftOut(not new_head):
        model = build_model(name, new_head or num_classes)
    load_body(model, state, f"timm:{name}") if new_head else load_strict(model, state, f"timm:{name}")
    num_classes = new_head or num_classes
    tag = published_tag(model)
    is_known = new_head is None and is_imagenet(tag, num_classes)
    classes, descriptions = imagenet_classes() if is_known else ((), {})
    return Product(
        model=model.eval(),
        architecture=architecture(model),
        classes=classes or tuple(str(i) for i in range(num_classes)),
        preprocess=published_preprocess(model),
        train_size=default_size(model),
        weights="raw",
        model_args={},
        has_names=bool(classes),
        details={},
        source=f"timm:{architecture(model)}.{tag}" if tag else f"timm:{architecture(model)}",
        descriptions=descriptions,
    ).at_test_size()


def _from_hub(name: str, weights: str, new_head: int | None) -> Product:
    if weights != "fixed":
        which(weights)
        raise UserError(f"hf-hub:{name} holds one set of weights\n  leave --weights out")
    folder = fetch_hub_folder(name)
    return load_folder(folder, "fixed", f"hf-hub:{name}", None, new_head)


def fetch(
    source: str, model_name: str | None = None, progress: Progress | None = None, *, needs_head: bool = True
) -> Path:
    """Return the file of a `fixres:` or `url:` source, fetched unless it is there; mistakes are found before.

    Raises:
        UserError: no such network, no model given for bare weights, or the file cannot be had.
    """
    source = weights_and_kind(source)[0]
    scheme, _, rest = source.partition(":")
    if scheme == "fixres":
        released = find_released(rest)
        require_weights(released)
        if needs_head:
            require_classifier(released)
        return fetch_released(released.name, progress)[0]
    model_for(source, model_name)
    url, sha256 = parse_url(rest)
    return cache.fetch(url, sha256=sha256, progress=progress)


def _from_released(name: str, weights: str, new_head: int | None) -> Product:
    path = fetch(f"fixres:{name}", needs_head=new_head is None)
    return load_released(path, find_released(name), which(weights), new_head)


def require_weights(released: Released) -> None:
    """Raise UserError for a release that is not weights."""
    if released.content != "weights":
        raise UserError(f"fixres:{released.name} is a file of {released.content}, no network\n  {_networks()}")


def require_classifier(released: Released) -> None:
    """Raise NoClassifierError for released weights that come without a classifier."""
    if released.num_classes == 0:
        raise NoClassifierError(
            f"fixres:{released.name} has no classifier\n"
            f"  fixres import fixres:{released.name} --new-head NUMBER_OF_CLASSES --out DIR"
        )


def load_released(path: Path, released: Released, weights: str | None = None, new_head: int | None = None) -> Product:
    """Load the file of a released network, fed as its figures were measured.

    Raises:
        UserError: the file does not hold that network, or the release is no network.
        NoClassifierError: it has no classifier, and none was asked for.
    """
    require_weights(released)
    if new_head is None:
        require_classifier(released)
    preprocess = Preprocess(
        size=released.test_size,
        crop_ratio=released.crop_ratio,
        resize=released.resize,
        interpolation=released.interpolation,
        mean=released.mean,
        std=released.std,
    )
    wanted = Wanted(
        released.architecture,
        weights,
        new_head,
        preprocess=preprocess,
        train_size=released.train_size,
        imagenet=new_head is None,
    )
    product = load_file(path, wanted, f"fixres:{released.name}")[0]
    published = (
        f"published: {released.top1} % at {released.test_size} px ({released.source}); " if released.top1 else ""
    )
    return replace(product, notes=(*product.notes, f"{published}licence {released.license}"))


def _networks() -> str:
    return "networks: " + ", ".join(name for name, r in RELEASED.items() if r.content == "weights" and r.num_classes)


def _from_package(text: str, weights: str) -> Product:
    name = PACKAGED_WEIGHTS.get(text)
    if name is None:
        raise UserError(f"unknown weights '{text}'\n  allowed: {', '.join(PACKAGED_WEIGHTS)}")
    if weights != "fixed":
        which(weights)
        raise UserError(f"{text} holds one set of weights\n  leave --weights out")
    path = packaged_file(text)
    if path is None:
        raise require_extra(package_of(text), "demo" if text.endswith("lite0") else "small")
    return load_file(path, Wanted(name, imagenet=True), text)[0]


def released_without_head(source: str) -> Released | None:
    """Return the release a source names when it is a network that was trained without classes."""
    scheme, _, name = source.partition(":")
    released = find_released(name) if scheme == "fixres" else None
    return released if released is not None and released.content == "weights" and not released.num_classes else None
