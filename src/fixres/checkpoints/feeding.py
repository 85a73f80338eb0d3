"""How weights that come alone are fed: as a run wrote down, as the program that wrote them feeds, or as timm does.

A state dict does not say. Marks do: keys only one program writes, an architecture or a file name only one program has.
The number of classes alone is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args

from pydantic import TypeAdapter, ValidationError
from torch import nn

from fixres.checkpoints.feeding_request import CHANGES, PreprocessChanges, Program, shown
from fixres.checkpoints.foreign.layouts import Found
from fixres.errors import UserError
from fixres.models.build import architecture, default_size
from fixres.models.names import bare, system_of
from fixres.models.pretrained import published_preprocess, published_tag
from fixres.models.released import HALVES
from fixres.models.sizes import MAX_SIZE
from fixres.resolution import Preprocess, Resize, Triple

_SIMPLE_FILES = ("best_acc_net.pth", "best_acc_net_ema.pth")
_CIFAR100: tuple[Triple, Triple] = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
_RECIPE_KEYS = {
    **{key: f"evaluation.{key}" for key in ("crop_ratio", "resize", "interpolation", "exact")},
    **{key: f"data.{key}" for key in ("exif", "alpha")},
    **{key: f"model.{key}" for key in ("mean", "std")},
}


@dataclass(frozen=True)
class _Known:
    """A program whose test-time preprocessing is published in its code."""

    title: str
    source: str
    """Where it is written, and what it says."""
    resize: Resize = "shorter"
    crop_ratio: float = 0.875
    only_imagenet: bool = False
    """Whether 1,000 classes are those of ImageNet-1k: no other set of 1,000 is known to the program."""


_PROGRAMS: dict[str, _Known] = {
    "simpleclassification": _Known(
        "SimpleClassification",
        "its dataloader.py: shorter side to 255 for 224 px, 510 for 448, bilinear; CIFAR as it is, with its own mean",
        crop_ratio=0.8772,
    ),
    "resnext-pytorch": _Known(
        "ResNeXt-PyTorch",
        "its dataset.py, as test.py reads: shorter side to 256 for 224 px, bilinear; its inference.py squashes, which "
        "--resize squash does",
        only_imagenet=True,
    ),
    "fixres": _Known(
        "FixRes",
        "its transforms.py: height to 256 for 224 px, 438 for 384, bilinear",
        resize="height",
        only_imagenet=True,
    ),
    "torchvision": _Known(
        "torchvision",
        "its references, presets.py: shorter side to 256 for 224 px, bilinear; weights called V2 were measured at 232, "
        "which --crop-ratio 0.9655 gives",
    ),
    "moco": _Known("MoCo", "its main_lincls.py: shorter side to 256 for 224 px, bilinear"),
}
_OF_LAYOUTS = {"fixres-paper": "fixres", "resnext-pytorch": "resnext-pytorch", "moco": "moco", "timm": "timm"}
"""Layouts only one program writes."""


class Fed(NamedTuple):
    """How a network is fed, and why."""

    preprocess: Preprocess
    note: str
    """For people."""
    knows_imagenet: bool
    """Whether 1,000 outputs are the classes of ImageNet-1k."""


def feeding_of(found: Found, model: nn.Module, typed: str, num_classes: int, fed_as: Program | None) -> Fed:
    """Return how the network of a weights file is fed.

    Args:
        found: the opened file.
        model: the network, as timm configures it.
        typed: its name as the user gave it.
        num_classes: outputs of its classifier.
        fed_as: the program, where the user says it.

    Raises:
        UserError: the file says itself how it is fed and the user names a program, or what it says is damaged.
    """
    if found.run:
        if fed_as is not None:
            raise says_itself(str(found.path))
        kept = _of_run(found, model)
        return Fed(kept, f"fed as in the run that wrote it: {_words(kept)}", False)
    if fed_as is not None:
        program, ground = str(fed_as), "--fed-as"
    elif "." in typed:
        program, ground = "timm", f"the tag of {typed} says so"
    else:
        program, ground = _marked(found, typed, architecture(model))
    known = _PROGRAMS.get(program)
    name = ".".join(filter(None, (architecture(model), published_tag(model))))
    if known is None:
        p = published_preprocess(model)
        if program:
            return Fed(p, f"fed as timm feeds {name} ({ground}): {_words(p)}", False)
        return Fed(
            p,
            f"fed as timm feeds {name}: {_words(p)}; this is assumed from the name of the model, since nothing in the "
            f"file says which program wrote it\n  --fed-as {'|'.join(get_args(Program))} says it",
            False,
        )
    p = _published(known, model, num_classes)
    return Fed(p, f"fed as {known.title} feeds ({ground}): {_words(p)}; source: {known.source}", known.only_imagenet)


def says_itself(source: str) -> UserError:
    """Return the error for a program named for what carries its own preprocessing."""
    flags = ", ".join(f"--{name.replace('_', '-')}" for name in CHANGES)
    return UserError(
        f"{source} says itself how it is fed; --fed-as is for bare weights files\n"
        f"  leave --fed-as out; {flags} change single settings"
    )


def changed(preprocess: Preprocess, changes: PreprocessChanges) -> Preprocess:
    """Return the preprocessing with what was asked for in its place."""
    given = {name: getattr(changes, name) for name in CHANGES if getattr(changes, name) is not None}
    return replace(preprocess, **given)


def differences(own: Preprocess, asked: Preprocess) -> list[str]:
    """Return a sentence for every setting in which pictures are fed otherwise than they would be by themselves."""
    return [
        f"{name.replace('_', ' ')} {shown(getattr(asked, name))} is not the product's, {shown(getattr(own, name))}"
        for name in CHANGES
        if getattr(asked, name) != getattr(own, name)
    ]


def _words(p: Preprocess) -> str:
    return f"{p.describe()}, mean {shown(p.mean)}, std {shown(p.std)}"


def _marked(found: Found, typed: str, name: str) -> tuple[str, str]:
    """Return the program whose marks a file bears, and which; two empty texts where it bears none.

    What is in the file counts more than what its network is called, and that more than the name of the file.
    """
    if found.layout in _OF_LAYOUTS:
        return _OF_LAYOUTS[found.layout], "by the keys in the file"
    system = system_of(typed)
    if system == "ResNetXt-PyTorch":
        return "resnext-pytorch", f"only it calls a network {typed}"
    # Everybody writes ResNet50.
    if name == "pnasnet5large_fixres" or (system == "FixRes" and bare(typed) != "resnet50"):
        return "fixres", f"only it has {typed}"
    if name.endswith("_cifar"):
        return "simpleclassification", f"only it has {name}"
    if found.layout == "flat" and found.path.name in _SIMPLE_FILES:
        return "simpleclassification", f"only it calls a file {found.path.name}"
    return "", ""


def _published(known: _Known, model: nn.Module, num_classes: int) -> Preprocess:
    """Return the preprocessing in a program's code for this network."""
    name = architecture(model)
    if name.endswith("_cifar") and known.title == "SimpleClassification":
        p = published_preprocess(model)
        mean, std = _CIFAR100 if num_classes == 100 else (p.mean, p.std)
        return replace(p, mean=mean, std=std)
    p = Preprocess(size=default_size(model), crop_ratio=known.crop_ratio, resize=known.resize)
    is_halved = known.title == "FixRes" and name.startswith("pnasnet")
    return replace(p, mean=HALVES, std=HALVES) if is_halved else p


def _of_run(found: Found, model: nn.Module) -> Preprocess:
    """Return what a training state of our own keeps, or where it is of before it kept that, what its recipe says.

    Raises:
        UserError: it is damaged.
    """
    run = found.run
    try:
        given: Mapping[str, Any] = run.get("preprocess") or _of_recipe(run, model)
        preprocess = TypeAdapter(Preprocess).validate_python(given)
    except (ValidationError, UserError, TypeError):
        raise UserError(f"{found.path} is damaged: it does not say how its network is fed") from None
    is_possible = 1 <= preprocess.size <= MAX_SIZE and 0.1 <= preprocess.crop_ratio <= 1 and min(preprocess.std) > 0
    if not is_possible:
        raise UserError(f"{found.path} is damaged: a network cannot be fed with {preprocess}")
    return preprocess


def _of_recipe(run: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    # torch.hub.load, which opens no run, works without what reads YAML.
    from fixres.config.yaml_text import parse, value_at

    values = parse(str(run.get("recipe", "")), "recipe.yaml").values
    published = published_preprocess(model)
    stated = {name: value_at(values, key, "model") for name, key in _RECIPE_KEYS.items()}
    kept = {name: getattr(published, name) if value == "model" else value for name, value in stated.items()}
    return {"size": run.get("size") or default_size(model), **kept}
