"""Making a product of weights that come alone: a file of any known layout, with the network it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fixres import legacy, models
from fixres.errors import UserError
from fixres.legacy import Found
from fixres.product.value import Product
from fixres.resolution import Preprocess


@dataclass(frozen=True)
class Wanted:
    """What is to become of a weights file."""

    model: str
    """Anything `models.canonical` understands."""
    weights: str | None = None
    """raw | ema; None: raw, or the average when there is nothing else."""
    new_head: int | None = None
    """Classes of a freshly initialised head in place of the file's, or where the file has none."""
    trust: bool = False
    """Run the code a pickle asks for."""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    """Passed to timm.create_model."""
    preprocess: Preprocess | None = None
    """How the network is fed; None: as timm's configuration of the model says."""
    train_size: int | None = None
    """Size in pixels the weights were trained at; None: the model's."""
    imagenet: bool = False
    """Whether the outputs are known to be the classes of ImageNet-1k."""


def load_file(path: Path, wanted: Wanted, source: str) -> tuple[Product, Found]:
    """Load a weights file strictly and return the product with what the file was found to be.

    Raises:
        UserError: the file cannot be read safely, is of no known layout, does not fit, or has no classifier.
    """
    found = legacy.open_checkpoint(path, trust=wanted.trust)
    label, state = legacy.choose(found, wanted.weights)
    _refuse_untrained_average(found, label, path)
    name = models.canonical(wanted.model)
    with torch.device("meta"):
        skeleton = models.build(name, 1000, wanted.model_args)
    state, renamed = legacy.fit(state, skeleton, str(path), found.ordered)
    heads = models.head_names(skeleton)
    rows = _head_rows(state, heads)
    if not rows and wanted.new_head is None:
        raise UserError(
            f"{path} holds no classifier ({', '.join(f'{head}.weight' for head in heads)})\n"
            "  give it a new, random one: --new-head NUMBER_OF_CLASSES"
        )
    num_classes = wanted.new_head or rows
    model = models.build(name, num_classes, wanted.model_args)
    notes = [found.description, *(f"left out {what}: {why}" for what, why in found.dropped.items())]
    notes += [renamed] if renamed else []
    if len(found.weights) > 1:
        other = next(key for key in found.weights if key != label)
        notes.append(f"took the {label} weights; the file holds {other} as well (--weights {other})")
    if wanted.new_head is not None:
        state = _with_new_head(state, model, heads)
        notes.append(f"the head starts from random weights, for {num_classes} classes")
    models.load_strict(model, state, str(path))
    preprocess = wanted.preprocess or models.published_preprocess(model)
    names: Sequence[str] = ()
    descriptions: Mapping[str, str] = {}
    if wanted.new_head is None and wanted.imagenet and num_classes == 1000:
        names, descriptions = models.imagenet_classes()
    product = Product(
        model=model.eval(),
        architecture=models.architecture(model),
        classes=tuple(names) or tuple(str(i) for i in range(num_classes)),
        preprocess=preprocess,
        train_size=wanted.train_size or models.default_size(model),
        weights=label,
        model_args=dict(wanted.model_args),
        has_names=bool(names),
        details={},
        source=source if wanted.weights is None else f"{source}#{wanted.weights}",
        descriptions=descriptions,
        notes=tuple(notes),
    )
    return product.at_test_size(), found


def _head_rows(state: Mapping[str, Tensor], heads: Sequence[str]) -> int:
    """Return the number of outputs of the classifier in the file, 0 when it has none."""
    for head in heads:
        weight = state.get(f"{head}.weight")
        if weight is None:
            weight = next((t for n, t in state.items() if n.startswith(f"{head}.") and n.endswith("weight")), None)
        if weight is not None and weight.dim() >= 2:
            return int(weight.shape[0])
    return 0


def _with_new_head(state: dict[str, Tensor], model: nn.Module, heads: Sequence[str]) -> dict[str, Tensor]:
    prefixes = tuple(f"{head}." for head in heads)
    body = {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}
    return body | {name: tensor for name, tensor in model.state_dict().items() if name.startswith(prefixes)}


def _refuse_untrained_average(found: Found, label: str, path: Path) -> None:
    """An average whose BatchNorm statistics were never updated classifies at random; older PyTorch wrote such files."""
    if label != "ema" or "raw" not in found.weights:
        return
    if legacy.untrained_statistics(found.weights["ema"]) and not legacy.untrained_statistics(found.weights["raw"]):
        raise UserError(
            f"the averaged weights in {path} have BatchNorm statistics that were never updated (mean 0, variance 1),\n"
            "  as PyTorch before 2.0 saved them: they classify at random\n  --weights raw"
        )


def with_feeding(product: Product, **changes: Any) -> Product:
    """Return the product fed differently; a change of None leaves the field as it is."""
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(product, preprocess=replace(product.preprocess, **given)).at_test_size() if given else product
