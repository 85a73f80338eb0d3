"""Forms of a network that can be exported: for any height and width where it would be bound to one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from timm.layers import Conv2dSame
from torch import nn

from fixres.errors import UserError
from fixres.models.build import RandomValuesLeftOut, architecture, build_model
from fixres.models.sizes import bound_size


def has_dynamic_padding(model: nn.Module) -> bool:
    """Return whether layers choose their padding by the input's size, as TensorFlow's SAME does."""
    return any(type(module).__name__.endswith("Same") for module in model.modules())


def with_constant_padding(model: nn.Module) -> nn.Module:
    """Return a copy whose SAME convolutions pad by a constant; equal wherever every stride divides its input.

    For an input of a multiple of the stride s, SAME padding is k - s in all (dilated: (k - 1) d + 1 - s), the smaller
    half in front. As symbolic arithmetic it keeps `torch.export` busy without end.
    """
    copied = copy.deepcopy(model)
    for name, module in list(copied.named_modules()):
        if isinstance(module, Conv2dSame):
            copied.set_submodule(name, _padded(module))
    return copied


def _padded(conv: Conv2dSame) -> nn.Module:
    sides = []
    # ZeroPad2d starts with the last dimension.
    for kernel, stride, dilation in reversed(list(zip(conv.kernel_size, conv.stride, conv.dilation, strict=True))):
        total = max((kernel - 1) * dilation + 1 - stride, 0)
        sides += [total // 2, total - total // 2]
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        0,
        conv.dilation,
        conv.groups,
        conv.bias is not None,
    )
    plain.weight, plain.bias = conv.weight, conv.bias
    return nn.Sequential(nn.ZeroPad2d(tuple(sides)), plain)


def with_free_positions(model: nn.Module, num_classes: int, model_args: Mapping[str, Any]) -> nn.Module | None:
    """Return a copy of a network with a position grid that resizes the grid to every input; None where timm has none.

    Args:
        model: as `build` made it, at the size its grid is for.
        num_classes: outputs of its head.
        model_args: what it was built with, the size of the grid apart.
    """
    arguments = {**model_args, "img_size": bound_size(model), "dynamic_img_size": True}
    try:
        with RandomValuesLeftOut():
            free = build_model(architecture(model), num_classes, arguments)
        free.load_state_dict(model.state_dict())
    except (UserError, RuntimeError):
        return None
    return free.eval()
