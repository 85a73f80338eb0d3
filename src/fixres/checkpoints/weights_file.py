"""Making a product of weights that come alone: a file of any known layout, with the network it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fixres.checkpoints.feeding import Fed, changed, feeding_of
from fixres.checkpoints.feeding_request import Feeding, given_changes
from fixres.checkpoints.foreign.fit import fit
from fixres.checkpoints.foreign.layouts import Found, choose, open_checkpoint, untrained_statistics
from fixres.checkpoints.product import Product
from fixres.errors import UserError
from fixres.models import build
from fixres.models.anatomy import class_tensors, head_names
from fixres.models.build import (
    RandomValuesLeftOut,
    build_model,
    build_shape,
    default_size,
    load_strict,
    require_finite,
    require_fit,
)
from fixres.models.names import canonical, means
from fixres.models.pretrained import imagenet_classes, published_preprocess
from fixres.resolution import Preprocess


@dataclass(frozen=True)
class Wanted:
    """What is to become of a weights file."""

    model: str
    """Anything `models.names.canonical` understands."""
    weights: str | None = None
    """raw | ema; None: raw, or the average when there is nothing else."""
    new_head: int | None = None
    """Classes of a freshly initialised head in place of the file's, or where the file has none."""
    trust: bool = False
    """Run the code a pickle asks for."""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    """Passed to timm.create_model."""
    preprocess: Preprocess | None = None
    """How the network is known to be fed; None: found out from the file."""
    feeding: Feeding = field(default_factory=Feeding)
    """How it is asked to be fed."""
    train_size: int | None = None
    """Size in pixels the weights were trained at; None: the model's."""
    imagenet: bool = False
    """Whether the outputs are known to be the classes of ImageNet-1k."""


class NoClassifierError(UserError):
    """Weights of a body alone, as self-supervised training leaves them."""


def load_file(path: Path, wanted: Wanted, source: str) -> tuple[Product, Found]:
    """Load a weights file strictly and return the product with what the file was found to be.

    Raises:
        UserError: the file cannot be read safely, is of no known layout, or does not fit.
        NoClassifierError: everything fits, but there is no classifier and no new one was asked for.
    """
    found = open_checkpoint(path, trust=wanted.trust)
    label, state = choose(found, wanted.weights)
    _refuse_untrained_average(found, label, path)
    require_finite(state, str(path))
    name = canonical(wanted.model)
    skeleton = build_shape(name, 1000, wanted.model_args)
    state, renamed = fit(state, skeleton, str(path), found.ordered)
    num_classes = wanted.new_head or _classes_of(state, skeleton, wanted, path)
    with RandomValuesLeftOut(wanted.new_head is None):
        model = build_model(name, num_classes, wanted.model_args)
    notes = [found.description, *(f"left out {what}: {why}" for what, why in found.dropped.items())]
    notes += [renamed] if renamed else []
    notes += _contradictions(found, name, num_classes, wanted)
    if len(found.weights) > 1:
        other = next(key for key in found.weights if key != label)
        notes.append(f"took the {label} weights; the file holds {other} as well (--weights {other})")
    if wanted.new_head is not None:
        state = _with_new_head(state, model)
        notes.append(f"the head starts from random weights, for {num_classes} classes")
    load_strict(model, state, str(path))
    fed = _fed(found, model, wanted, num_classes)
    names, descriptions = _names(found, num_classes, wanted, fed)
    product = Product(
        model=model.eval(),
        architecture=build.architecture(model),
        classes=names or tuple(str(i) for i in range(num_classes)),
        preprocess=fed.preprocess,
        train_size=wanted.train_size or wanted.model_args.get("img_size") or default_size(model),
        weights=label,
        model_args={key: value for key, value in wanted.model_args.items() if key != "img_size"},
        has_names=bool(names),
        are_names_assumed=bool(names) and not found.class_names and not wanted.imagenet,
        details={},
        source=source if wanted.weights is None else f"{source}#{wanted.weights}",
        descriptions=descriptions,
        notes=(*notes, *filter(None, [fed.note])),
    )
    return product.at_test_size(), found


def _classes_of(state: Mapping[str, Tensor], skeleton: nn.Module, wanted: Wanted, path: Path) -> int:
    """Return the number of classes of the classifier in the file."""
    per_class = class_tensors(wanted.model, wanted.model_args)
    present = {name: dimension for name, dimension in per_class.items() if name in state}
    for name, dimension in present.items():
        if state[name].dim() > dimension:
            return int(state[name].shape[dimension])
    heads = tuple(f"{head}." for head in head_names(skeleton))
    own = {name: tensor for name, tensor in skeleton.state_dict().items() if name.startswith(heads)}
    # With the network's own head in place whatever else does not fit is listed first.
    body = {name: tensor for name, tensor in state.items() if not name.startswith(heads)}
    require_fit(skeleton, body | own, str(path))
    raise NoClassifierError(
        f"{path} holds no classifier ({', '.join(per_class)})\n"
        "  give it a new, random one: fixres import ... --new-head NUMBER_OF_CLASSES"
    )


def _fed(found: Found, model: nn.Module, wanted: Wanted, num_classes: int) -> Fed:
    """Return how the network is fed: as is known, or found out from the file, with what was asked for in its place."""
    if wanted.preprocess is not None or wanted.imagenet:
        fed = Fed(wanted.preprocess or published_preprocess(model), "", wanted.imagenet)
    else:
        fed = feeding_of(found, model, wanted.model, num_classes, wanted.feeding.fed_as)
    size = fed.preprocess.size if found.run else wanted.model_args.get("img_size", fed.preprocess.size)
    given = given_changes(wanted.feeding)
    note = "\n".join(filter(None, [fed.note, f"  but {' '.join(given)}" if given else ""]))
    return fed._replace(preprocess=changed(fed.preprocess.at(size), wanted.feeding), note=note)


def _names(found: Found, num_classes: int, wanted: Wanted, fed: Fed) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the names of the classes, from the file or because they are known, and what they mean."""
    if wanted.new_head is not None:
        return (), {}
    stated = found.class_names
    if len(stated) == num_classes and len(set(stated)) == num_classes:
        return stated, {}
    return imagenet_classes() if fed.knows_imagenet and num_classes == 1000 else ((), {})


def _contradictions(found: Found, name: str, num_classes: int, wanted: Wanted) -> list[str]:
    """Say where the file itself states something else than what was made of it."""
    said = []
    architecture = name.split(".")[0]
    if found.architecture and not means(found.architecture, architecture):
        said.append(f"warning: the file says it holds {found.architecture}; it was loaded into {architecture}")
    if found.num_classes and wanted.new_head is None and found.num_classes != num_classes:
        said.append(f"warning: the file says {found.num_classes} classes, its classifier has {num_classes}")
    return said


def _with_new_head(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    prefixes = tuple(f"{head}." for head in head_names(model))
    body = {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}
    return body | {name: tensor for name, tensor in model.state_dict().items() if name.startswith(prefixes)}


def _refuse_untrained_average(found: Found, label: str, path: Path) -> None:
    """An average whose BatchNorm statistics were never updated classifies at random; older PyTorch wrote such files."""
    if label != "ema" or "raw" not in found.weights:
        return
    if untrained_statistics(found.weights["ema"]) and not untrained_statistics(found.weights["raw"]):
        raise UserError(
            f"the averaged weights in {path} have BatchNorm statistics that were never updated (mean 0, variance 1),\n"
            "  as PyTorch before 2.0 saved them: they classify at random\n  --weights raw"
        )


def with_feeding(product: Product, **changes: Any) -> Product:
    """Return the product fed differently; a change of None leaves the field as it is."""
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(product, preprocess=replace(product.preprocess, **given)).at_test_size() if given else product
