"""What answers: a checkpoint or an exported file, at the sizes it takes, with the weights of a fix or before it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fixres.checkpoints.feeding_request import given_changes
from fixres.checkpoints.product import Product
from fixres.checkpoints.resolve import load, unfixed
from fixres.config.choices import BackendName
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.sources.synthetic import Synthetic
from fixres.data.transforms import normalise
from fixres.errors import UserError
from fixres.evaluation.evaluate import Forward
from fixres.evaluation.promises import SetRule
from fixres.inference.export.formats.table import ExportedModel, is_exported, open_exported
from fixres.inference.export.metadata import checkpoint_hash
from fixres.inference.export.parity import file_inputs, views
from fixres.inference.grad_cam import Layer, grad_cam, overlay
from fixres.inference.promised import Promises, promises_of
from fixres.inference.server.schemas import PredictOptions, Problem, Weights
from fixres.inference.server.settings import Limits, Settings
from fixres.models.sizes import bound_size, needs_values, refusal, without_values
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime

Compute = Callable[[Tensor, int], npt.NDArray[np.float64]]
"""uint8 `[B, 3, S, S]` and S to probabilities float64 `[B, C]`."""

_SMALLEST_SIZE = 32
_LARGEST_SIZE = 448
_KEPT_SIZES = 4
"""Copies of a network with a position grid, one per size."""


@dataclass(frozen=True)
class Network:
    """A network ready to serve."""

    name: str
    """What was loaded, without the folders of this machine."""
    architecture: str
    classes: tuple[str, ...]
    descriptions: dict[str, str]
    preprocess: Preprocess
    """At the test size."""
    train_size: int
    backend: str
    sha256: str
    compute: dict[Weights, Compute]
    refuse_size: Callable[[int], str | None]
    """Why a size is not answered, or None."""
    size_rule: str
    products: dict[Weights, Product]
    """What Grad-CAM looks into; none of an exported file."""
    promises: Promises | None = None
    """What is promised at the test size with the weights that ship; None: nothing."""
    notes: tuple[str, ...] = ()
    """What was found in a bare weights file, and how it is fed, for people."""
    layers: dict[Weights, Layer] = field(default_factory=dict)
    """Those whose places Grad-CAM shows, once they are found."""

    def require_size(self, size: int) -> None:
        """Raise Problem for a size that is not answered."""
        why = self.refuse_size(size)
        if why is not None:
            raise Problem(422, "bad_size", f"size {size}: {why}; this server answers at {self.size_rule}")

    def require_weights(self, weights: Weights) -> None:
        """Raise Problem for weights that are not there."""
        if weights not in self.compute:
            raise Problem(422, "no_such_weights", "the tensors from before a fix are not part of what is served")

    def promised(self, options: PredictOptions, size: int) -> tuple[SetRule | None, float | None]:
        """Return the rule of sets and the probability below which answers are unsure, where they are asked for.

        Raises:
            Problem: that is not promised.
        """
        if options.coverage is None and options.abstain is None:
            return None, None
        if self.promises is None:
            raise Problem(422, "not_promised", "what is served promises nothing: it was not certified as it is fed")
        if (size, options.weights) != (self.preprocess.size, "fixed"):
            raise Problem(422, "not_promised", f"promises hold at {self.preprocess.size} px with the fixed weights")
        try:
            return (
                None if options.coverage is None else self.promises.sets(options.coverage),
                None if options.abstain is None else self.promises.abstains_below(options.abstain),
            )
        except UserError as error:
            raise Problem(422, "not_promised", str(error).split("\n")[0]) from None

    def require_explainable(self) -> None:
        """Raise Problem where answers cannot be explained."""
        if not self.products:
            raise Problem(501, "cannot_explain", "an exported file cannot be explained; serve the checkpoint")

    def explain(self, pixels: Tensor, target: int, weights: Weights) -> npt.NDArray[np.uint8]:
        """Return heat of class `target` laid over uint8 `[3, S, S]`, as uint8 `[S, S, 3]`.

        The network's layers are listened to meanwhile: nothing else may use it.

        Raises:
            Problem: captum is not installed, or the network has no layer with places.
        """
        product = self.products[weights].at(pixels.shape[-1])
        p = product.preprocess
        images = normalise(pixels[None], p.mean, p.std).to(next(product.model.parameters()).device)
        try:
            heat, self.layers[weights] = grad_cam(product.model, images, [target], self.layers.get(weights))
        except UserError as error:
            raise Problem(501, "cannot_explain", str(error).split("\n")[0]) from None
        return overlay(pixels.permute(1, 2, 0).numpy(), heat[0].cpu().numpy())

    def spoken(self, index: int) -> str:
        """Return what people call class `index`."""
        return self.descriptions.get(self.classes[index], self.classes[index])


def open_network(settings: Settings) -> Network:
    """Load what is to be served, ready to compute.

    Raises:
        UserError: it cannot be loaded, or not run on the backend; or the weights changed since the server started.
    """
    network = _from_file(settings) if is_exported(settings.source) else _from_product(settings)
    if settings.degrade_to is not None:
        if settings.degrade_to >= network.preprocess.size:
            raise UserError(
                f"--degrade-to {settings.degrade_to}: a busy server answers at a smaller size than "
                f"{network.preprocess.size}, or at none"
            )
        if why := network.refuse_size(settings.degrade_to):
            raise UserError(f"--degrade-to {settings.degrade_to}: {why}; {network.name} takes {network.size_rule}")
    if settings.expected_sha256 not in ("", network.sha256):
        raise UserError(f"{settings.source} was replaced while the server runs: start the server again")
    _warm_up(network, *([settings.degrade_to] if settings.degrade_to else []))
    return network


def _warm_up(network: Network, *more: int) -> None:
    """Compute once at the sizes of the page, and at `more`: the first time of anything takes longer.

    Raises:
        UserError: what comes out are no numbers.
    """
    for compute in network.compute.values():
        for size in {network.train_size, network.preprocess.size, *more}:
            if network.refuse_size(size) is None:
                found = compute(torch.zeros(1, 3, size, size, dtype=torch.uint8), size)
                if not np.isfinite(found).all():
                    raise UserError(f"{network.name}: its outputs are no numbers at {size} px; its weights are broken")


def _from_product(settings: Settings) -> Network:
    product = load(settings.source, settings.weights, settings.model, settings)
    before = unfixed(product)
    products: dict[Weights, Product] = {"fixed": product}
    if before is not product:
        products["before_fix"] = before
    backend = settings.backend or "torch"
    runtime = Runtime(RuntimeSettings(device="auto" if backend == "torch" else "cpu", threads=settings.threads))
    sizes = settings.sizes or tuple(sorted(product.heads or {product.train_size, product.preprocess.size}))
    rule, refuse = _rule_of_network(product, settings) if backend == "torch" else _rule_of_list(sizes)
    return Network(
        name=_short(product.source),
        architecture=product.architecture,
        classes=product.classes,
        descriptions=dict(product.descriptions),
        preprocess=product.preprocess,
        train_size=product.train_size,
        backend=backend,
        sha256=checkpoint_hash(product),
        compute={key: _computed(one, runtime, backend, sizes) for key, one in products.items()},
        refuse_size=refuse,
        size_rule=rule,
        products=products,
        promises=None if given_changes(settings) else _promised(product),
        notes=product.notes,
    )


def _promised(product: Product) -> Promises | None:
    try:
        return promises_of(product)
    except UserError:
        return None


def _from_file(settings: Settings) -> Network:
    if settings.weights != "fixed" or settings.model is not None:
        raise UserError(f"{settings.source} holds one set of weights of one network\n  leave --weights and --model out")
    if settings.fed_as is not None or given_changes(settings):
        raise UserError(
            f"{settings.source} is fed as it was exported\n  fixres export CHECKPOINT takes --resize and the like"
        )
    opened = open_exported(Path(settings.source), settings.backend, settings.threads)
    sheet = opened.sheet
    size, largest = sheet.size, _largest(sheet.size, settings.limits)

    def refuse(asked: int) -> str | None:
        return None if asked <= largest and sheet.sizes.accept(asked, asked) else "the file does not take it"

    rule = sheet.sizes.describe() + ("" if sheet.sizes.fixed else f" to {largest}")
    size_rule, refuse_size = _rule_of_list(settings.sizes) if settings.sizes else (rule, refuse)
    for asked in settings.sizes:
        if not sheet.sizes.accept(asked, asked):
            raise UserError(f"{settings.source} takes {sheet.sizes.describe()}, not {asked}\n  --sizes {size}")
    return Network(
        name=Path(settings.source).name,
        architecture=sheet.architecture,
        classes=sheet.classes,
        descriptions=sheet.descriptions,
        preprocess=sheet.preprocess,
        train_size=sheet.train_size,
        backend=opened.backend,
        sha256=sheet.checkpoint_sha256,
        compute={"fixed": _exported(opened)},
        refuse_size=refuse_size,
        size_rule=size_rule,
        products={},
    )


def _short(source: str) -> str:
    path = Path(source)
    return "/".join(path.parts[-2:]) if path.is_absolute() else source


def _largest(size: int, limits: Limits) -> int:
    return limits.size or max(2 * size, _LARGEST_SIZE)


def _rule_of_list(sizes: tuple[int, ...]) -> tuple[str, Callable[[int], str | None]]:
    words = ", ".join(map(str, sizes))
    return words, lambda size: None if size in sizes else "not one of the sizes the server was started for"


def _rule_of_network(product: Product, settings: Settings) -> tuple[str, Callable[[int], str | None]]:
    """Return in words and as a function which sizes a checkpoint on torch is asked at; each is found by trying once."""
    if settings.sizes:
        for size in settings.sizes:
            product.at(size)
        return _rule_of_list(settings.sizes)
    if product.heads:
        return _rule_of_list(tuple(sorted(product.heads)))
    own = (product.train_size, product.preprocess.size)
    low, high = min(_SMALLEST_SIZE, *own), _largest(product.preprocess.size, settings.limits)
    shape = product.model if needs_values(product.model) else without_values(product.model)
    known: dict[int, str | None] = {product.preprocess.size: None}
    lock = threading.Lock()

    def refuse(size: int) -> str | None:
        if not low <= size <= high:
            return "out of range"
        with lock:
            if size not in known:
                known[size] = refusal(shape, size)
            return known[size]

    return f"{low} to {high} px where the network takes it", refuse


def _computed(product: Product, runtime: Runtime, backend: BackendName, sizes: tuple[int, ...]) -> Compute:
    """Return the network as `backend` computes it; another one than torch is compared with it at `sizes` first."""
    model = runtime.place(product.model).eval()
    is_own_for_each = bound_size(model) is not None or backend != "torch" or bool(product.heads)
    placed = replace(product, model=model)

    @lru_cache(max(_KEPT_SIZES, len(sizes)))
    def at(size: int) -> Forward:
        own = placed.network_at(size).eval() if is_own_for_each else model
        return Forward(own, product.preprocess.at(size), runtime, 0, backend)

    def compute(images: Tensor, size: int) -> npt.NDArray[np.float64]:
        return at(size)([images]).double().softmax(1).numpy()

    if backend != "torch":
        drawn = Synthetic(classes=8, images=8, size=240)
        pictures = [drawn.read(f"train/{name}/{i:05}", "apply", "white") for i, name in enumerate(drawn.class_names())]
        for size in sizes:
            compute(views(pictures, product, size, size), size)
    return compute


def _exported(opened: ExportedModel) -> Compute:
    sheet = opened.sheet

    def compute(images: Tensor, _size: int) -> npt.NDArray[np.float64]:
        outputs = torch.from_numpy(opened.outputs(file_inputs(images, sheet).numpy())).double()
        return (outputs.softmax(1) if sheet.output == "logits" else outputs).numpy()

    return compute
