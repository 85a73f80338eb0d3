"""The names people type: timm's own, timm's former ones, and those of the four systems."""

from __future__ import annotations

import re
from functools import cache

import timm
from timm.models import _registry

from fixres.errors import UserError, did_you_mean
from fixres.models import own_architectures

_WEAKLY_SUPERVISED = {width: f"resnext101_32x{width}d.fb_wsl_ig1b_ft_in1k" for width in (8, 16, 32, 48)}
_OF_SYSTEMS = (
    ("FixRes", {"ResNet50": "resnet50.tv_in1k"}),
    (
        "ResNetXt-PyTorch",
        {
            "resnetxt50_32x4d": "resnext50_32x4d.tv_in1k",
            "resnetxt101_32x8d": "resnext101_32x8d.tv_in1k",
            "resnetxt101_64x4d": "resnext101_64x4d.tv_in1k",
        },
    ),
    ("FixRes", {f"IGAM_Resnext101_32x{width}d": meant for width, meant in _WEAKLY_SUPERVISED.items()}),
    ("WSL-Images", {f"resnext101_32x{width}d_wsl": meant for width, meant in _WEAKLY_SUPERVISED.items()}),
    ("WSL-Images", {"ig_resnext101_32x48": _WEAKLY_SUPERVISED[48]}),
    ("FixRes", {"PNASNet": "pnasnet5large_fixres"}),
    ("the FixRes paper", {"PNASNet-5": "pnasnet5large_fixres", "SENet-154": "legacy_senet154.in1k"}),
    ("the FixRes paper", {"InceptionResNet-V2": "inception_resnet_v2.tf_in1k"}),
)
SYSTEM_OF = {name: system for system, names in _OF_SYSTEMS for name in names}
"""Which system has a name of `ALIASES`."""
ALIASES = {name: meant for _, names in _OF_SYSTEMS for name, meant in names.items()}
"""The other systems' names, and the timm architecture with the tag that feeds it as they do."""

_EFFICIENTNET = re.compile(
    r"(fix|tf)?efficientnet(b[0-8]|l2)(475)?(ap|advprop|ns475|ns|noisystudent)?(475)?", re.IGNORECASE
)
_PLAIN_TAGS = {**{f"b{i}": "in1k" for i in range(6)}, "b6": "aa_in1k", "b7": "aa_in1k", "b8": "ra_in1k"}


@cache
def architecture_names() -> frozenset[str]:
    """Return every architecture that can be built: timm's and our own."""
    return frozenset(timm.list_models())


def canonical(name: str) -> str:
    """Return the timm name, with a tag where one is meant, of anything a user may type.

    timm's own names are returned as they are: `efficientnet_b0` is timm's network, `EfficientNet-B0` (as
    `efficientnet-b0`) the TensorFlow one of the paper, `tf_efficientnet_b0`.

    Raises:
        UserError: the name is none of these.
    """
    if name.split(".")[0] in architecture_names():
        return _with_known_tag(name)
    former = getattr(_registry, "_deprecated_models", {}).get(name)
    if former:
        return str(former)
    key = _fold(name)
    for alias, meant in ALIASES.items():
        if _fold(alias) == key:
            return meant
    efficientnet = _EFFICIENTNET.fullmatch(key)
    found = _efficientnet(*efficientnet.groups()) if efficientnet else ""
    if found:
        return found
    everything = [*ALIASES, *architecture_names()]
    raise UserError(
        f"unknown model '{name}'{did_you_mean(name.split('.')[0], everything)}\n"
        f"  {len(architecture_names()):,} architectures: fixres models PATTERN"
    )


def _with_known_tag(name: str) -> str:
    architecture, _, tag = name.partition(".")
    if name == architecture:
        return name
    try:
        timm.models.get_pretrained_cfg(name)
    except RuntimeError:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        there_are = f"there are: {', '.join(tags[:12])}" if tags else "there are none"
        hint = did_you_mean(tag, tags)
        raise UserError(f"'{architecture}' has no weights tagged '{tag}'{hint}\n  {there_are}") from None
    return name


def system_of(name: str) -> str:
    """Return which of the other systems calls a network so; empty for timm's own names, and where none does."""
    if name.split(".")[0] in architecture_names():
        return ""
    return next((system for alias, system in SYSTEM_OF.items() if _fold(alias) == _fold(name)), "")


def bare(name: str) -> str:
    """Return the architecture alone, without a tag."""
    return canonical(name).split(".")[0]


def same_architecture(first: str, second: str) -> bool:
    """Return whether two names mean the same network, whatever their weights."""
    return bare(first) == bare(second)


def means(text: str, architecture: str) -> bool:
    """Return whether another project's spelling may mean an architecture: true unless it clearly names another."""
    try:
        return bare(text) == architecture or _fold(bare(text)) in _fold(architecture)
    except UserError:
        return True


def _fold(name: str) -> str:
    return re.sub(r"[-_ .]", "", name).casefold()


def _efficientnet(prefix: str | None, width: str, early: str | None, variant: str | None, late: str | None) -> str:
    if width == "l2":
        if variant in ("ap", "advprop"):
            return ""
        # The L2 that FixEfficientNet starts from is the one trained at 475 px; the other was trained at 800.
        small = prefix == "fix" or early or late or (variant or "").endswith("475")
        return "tf_efficientnet_l2.ns_jft_in1k_475" if small else "tf_efficientnet_l2.ns_jft_in1k"
    if early or late or variant == "ns475" or (width == "b8" and variant in ("ns", "noisystudent")):
        return ""
    tags = {"ap": "ap_in1k", "advprop": "ap_in1k", "ns": "ns_jft_in1k", "noisystudent": "ns_jft_in1k"}
    return f"tf_efficientnet_{width}.{tags[variant] if variant else _PLAIN_TAGS[width]}"


assert own_architectures.default_cfgs, "the extra networks are registered before any name is looked up"
