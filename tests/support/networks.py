"""Networks without memory, and networks in which every tensor tells a wrong one from a right one."""

from __future__ import annotations

import torch
from torch import nn

from fixres.models.build import build_model


def scramble(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor values that tell a wrong one from a right one, statistics of BatchNorm included."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.05, generator=generator)
    return model


def skeleton(name: str, num_classes: int = 1000) -> nn.Module:
    """Return the network as the importer has it before the number of classes is known: without memory."""
    with torch.device("meta"):
        return build_model(name, num_classes)
