"""Products whose networks have no branch at zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fixres.checkpoints.product import Product
from fixres.models.build import build_model
from fixres.models.sizes import at_size, bound_size
from fixres.resolution import Preprocess


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return the network with weights that leave no branch at zero and no statistics at their start."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        if isinstance(getattr(module, "weight", None), torch.Tensor) and module.weight.dim() == 1:
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
        for name in ("gamma", "layer_scale", "ls1", "ls2"):
            scale = getattr(module, name, None)
            if isinstance(scale, nn.Parameter):
                nn.init.uniform_(scale, 0.3, 1, generator=generator)
    return model.eval()


def make(name: str, size: int = 64, **changes: Any) -> Product:
    torch.manual_seed(0)
    model = lively(build_model(name, 5, init="timm"))
    preprocess = replace(Preprocess(size), **changes)
    found = Product(model, name, tuple("abcde"), preprocess, 96, "raw", {}, True, {}, f"memory/{name}")
    return found if bound_size(model) is None else replace(found, model=at_size(model, size))
