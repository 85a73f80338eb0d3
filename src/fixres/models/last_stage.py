"""The last stage of any network: what runs between its last reduction and the pooling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fixres.errors import UserError
from fixres.models.build import architecture, in_channels
from fixres.models.sizes import evaluation_mode

_Shapes = dict[str, tuple[int, ...]]


def last_stage(model: nn.Module, size: int, heads: tuple[str, ...]) -> tuple[str, ...]:
    """Return the modules of the last stage in execution order, those between it and the pooling included.

    The stage is the module timm names as the last of its feature maps, where that holds at least two weight layers.
    Otherwise, as for PNASNet with its cells side by side, it is the blocks that run at the last resolution, without
    the one that reduces to it when others follow: cells 9 to 11, which FixRes moves.

    Args:
        model: the network.
        size: side in pixels of the pass that finds the order.
        heads: names of the classifier layers, which are never part of it.

    Raises:
        UserError: no stage can be told apart.
    """
    order, outputs = _execution(model, size)
    order = [name for name in order if not is_inside(name, heads)]
    stage = _named_by_timm(model) or _at_the_last_resolution(model, outputs, heads)
    inside = [place for place, name in enumerate(order) if is_inside(name, stage)]
    if not inside:
        raise UserError(
            f"moves last-stage does not suit '{architecture(model)}': no stage of it can be told apart\n"
            "  use moves: head, head+norm or all"
        )
    after = [name for name in order[max(inside) + 1 :] if not is_inside(name, stage)]
    return (*stage, *after)


def _named_by_timm(model: nn.Module) -> tuple[str, ...]:
    """Return the module of the last feature map, if it is a stage and not a lone layer behind one."""
    name = _last_map(model)
    module = dict(model.named_modules()).get(name) if name else None
    return (name,) if module is not None and _num_weight_layers(module) > 1 else ()


def _last_map(model: nn.Module) -> str:
    features: Any = getattr(model, "feature_info", None)
    features = getattr(features, "info", features)
    return str(features[-1].get("module") or "") if features else ""


def _num_weight_layers(module: nn.Module) -> int:
    return sum(any(p.dim() > 1 for p in layer.parameters(recurse=False)) for layer in module.modules())


def _at_the_last_resolution(model: nn.Module, outputs: _Shapes, heads: tuple[str, ...]) -> tuple[str, ...]:
    """Return the blocks at the resolution of the last feature map, without the one that reduces to it."""
    blocks = [name for name in _blocks(model) if name in outputs and not is_inside(name, heads)]
    blocks = sorted(blocks, key=list(outputs).index)
    if not blocks:
        return ()
    # Behind the pooling some networks have convolutions too; their maps are of one pixel.
    last = outputs.get(_last_map(model))
    stage = [name for name in blocks if outputs[name] == last] or [
        name for name in blocks if outputs[name] == outputs[blocks[-1]]
    ]
    rest = sum(_num_weight_layers(model.get_submodule(name)) for name in stage[1:])
    is_reduction = blocks.index(stage[0]) > 0
    return tuple(stage[1:] if is_reduction and rest > 1 else stage)


def _blocks(model: nn.Module, prefix: str = "") -> Iterator[str]:
    """Yield the building blocks with weights: children, with plain sequences and lists opened."""
    for name, child in model.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _blocks(child, f"{prefix}{name}.")
        elif _num_weight_layers(child):
            yield f"{prefix}{name}"


def _execution(model: nn.Module, size: int) -> tuple[list[str], _Shapes]:
    """Return the modules with parameters of their own as they run, and the resolution of every map `[B, C, H, W]`."""
    order: dict[str, None] = {}
    outputs: _Shapes = {}

    def remember(name: str, has_own: bool) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if has_own:
                order[name] = None
            if isinstance(output, Tensor) and output.dim() == 4:
                outputs.pop(name, None)
                outputs[name] = tuple(output.shape[2:])

        return hook

    hooks = []
    for name, module in model.named_modules():
        # What the network itself owns, such as position embeddings, belongs to no stage.
        has_own = bool(name) and any(True for _ in module.parameters(recurse=False))
        hooks.append(module.register_forward_hook(remember(name, has_own)))
    try:
        with evaluation_mode(model), torch.inference_mode():
            device = next(model.parameters()).device
            model(torch.zeros(1, in_channels(model), size, size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return list(order), outputs


def is_inside(name: str, modules: Sequence[str]) -> bool:
    """Return whether a module or tensor is one of the modules or part of one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)
