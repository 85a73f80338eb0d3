"""The first part of a network: most of the work of a training step in many, and few of the weights."""

from __future__ import annotations

from timm.models import group_parameters
from torch import nn

from fixres.models.anatomy import head_names, is_inside
from fixres.models.moves import frozen_modules


def first_part(model: nn.Module, share: float) -> tuple[str, ...]:
    """Return what a network begins with that holds at most `share` of the weights in front of its head.

    The names are those `freeze` takes: modules, and parameters that lie beside them. Layers stay together as timm
    groups them for learning rates by layer; there is no first part where it knows no order of them.
    """
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        return ()
    heads = head_names(model)
    weights = {name: p.numel() for name, p in model.named_parameters() if not is_inside(name, heads)}
    groups: dict[int, list[str]] = {}
    for name, layer in group_parameters(model, matcher(coarse=True), reverse=True).items():
        groups.setdefault(layer, []).append(name)
    kept: set[str] = set()
    for layer in sorted(groups):
        own = kept | set(groups[layer])
        if any(name not in weights for name in own) or sum(map(weights.__getitem__, own)) > share * sum(
            weights.values()
        ):
            break
        kept = own
    modules = frozen_modules(model, frozenset(kept))
    return (*modules, *(name for name in weights if name in kept and not is_inside(name, modules)))
