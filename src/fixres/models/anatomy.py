"""Where things are in any network: its head, its last norms, its last stage."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import timm
import timm.layers
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fixres.errors import UserError
from fixres.models.build import architecture, build_shape, in_channels, load_strict
from fixres.models.sizes import evaluation_mode, probe

_NORM_NAME = re.compile(r"((Batch|Layer|Group|Rms|Simple|Evo|FilterResponse|FrozenBatch)Norm|InplaceAbn)")


def _norms_of_timm() -> tuple[type[nn.Module], ...]:
    """Return timm's norm layers, fused with an activation or not; releases differ in which they have."""
    found = (layer for name, layer in vars(timm.layers).items() if _NORM_NAME.match(name) and isinstance(layer, type))
    return tuple(layer for layer in found if issubclass(layer, nn.Module))


NORM_TYPES: tuple[type[nn.Module], ...] = (
    _BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.InstanceNorm2d,
    *_norms_of_timm(),
)


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the classifier layers (two for distilled networks).

    Raises:
        UserError: the network has no classifier.
    """
    get = getattr(model, "get_classifier", None)
    heads = get() if callable(get) else None
    heads = heads if isinstance(heads, tuple | list | nn.ModuleList) else (heads,)
    layers = {id(head) for head in heads if isinstance(head, nn.Module)}
    found = [name for name, module in model.named_modules() if id(module) in layers and has_parameters(module)]
    # VOLO's second classifier, whose logits are added to the first's, is in the configuration only.
    stated = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    for name in (stated,) if isinstance(stated, str) else stated:
        overlaps = any(f"{name}.".startswith(f"{head}.") or head.startswith(f"{name}.") for head in found)
        if not overlaps and has_parameters(dict(model.named_modules()).get(name)):
            found.append(name)
    if not found:
        raise UserError(f"'{architecture(model)}' has no classifier layer; use moves: all")
    return tuple(found)


def has_parameters(module: nn.Module | None) -> bool:
    """Return whether there is a module and it has any parameter."""
    return module is not None and any(True for _ in module.parameters())


def class_tensors(name: str, kwargs: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Return {tensor: dimension} of every tensor whose size follows the number of classes."""
    first, second = (build_shape(name, num_classes, kwargs).state_dict() for num_classes in (1000, 1001))
    return {
        key: next(d for d, (a, b) in enumerate(zip(tensor.shape, second[key].shape, strict=True)) if a != b)
        for key, tensor in first.items()
        if tensor.shape != second[key].shape
    }


def last_norms(model: nn.Module, size: int) -> tuple[str, ...]:
    """Return the norms on whose output no other norm depends, in execution order.

    One for most networks; several where branches end in norms of their own; none for a network without norms. Found
    by walking the graph of one forward pass `[2, 3, size, size]`, so neither names nor definition order matter.
    """
    order: dict[str, Any] = {}

    def remember(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.grad_fn is not None:
                order.pop(name, None)
                order[name] = output.grad_fn

        return hook

    with ExitStack() as hooks, evaluation_mode(model), torch.enable_grad():
        for name, module in model.named_modules():
            if isinstance(module, NORM_TYPES):
                hooks.enter_context(module.register_forward_hook(remember(name)))
        device = next(model.parameters()).device
        output = model(torch.zeros(2, in_channels(model), size, size, device=device, requires_grad=True))
    # A norm's own internals lie upstream of its output, so start behind every norm and collect the norms met.
    followed = upstream((parent for node in order.values() for parent in _parents(node)), _parents)
    # Some networks also compute what their logits do not use.
    used = upstream([output.grad_fn], _parents) if isinstance(output, Tensor) else set(order.values())
    names = {node: name for name, node in order.items()}
    return tuple(name for node, name in names.items() if node not in followed and node in used)


def _parents(node: Any) -> list[Any]:
    """Return what a step of the forward pass was computed from."""
    return [parent for parent, _ in node.next_functions]


def upstream(starts: Iterable[Any], parents: Callable[[Any], Iterable[Any]]) -> set[Any]:
    """Return the nodes of a graph, `starts` among them, that `starts` are computed from; None is no node."""
    seen: set[Any] = set()
    stack = list(starts)
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack.extend(parents(node))
    return seen


_Shapes = dict[str, tuple[int, ...]]


def last_stage(model: nn.Module, size: int, heads: tuple[str, ...]) -> tuple[str, ...]:
    """Return the modules of the last stage in execution order, those between it and the classifier included.

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
    """Return the modules with parameters of their own, and the dropout, as they run; and every map's resolution.

    Maps are outputs `[B, C, H, W]`.
    """
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

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            # What the network itself owns, such as position embeddings, belongs to no stage.
            is_dropout = isinstance(module, nn.Dropout) and module.p > 0
            has_own = bool(name) and (is_dropout or any(True for _ in module.parameters(recurse=False)))
            hooks.enter_context(module.register_forward_hook(remember(name, has_own)))
        probe(model, size)
    return list(order), outputs


def is_inside(name: str, modules: Sequence[str]) -> bool:
    """Return whether a module or tensor is one of the modules or part of one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def load_body(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load everything strictly but the head, which keeps its random weights where `state` has none of its shape.

    Raises:
        UserError: anything else does not fit.
    """
    own = model.state_dict()
    heads = tuple(f"{name}." for name in head_names(model))
    kept = {n: t for n, t in own.items() if n.startswith(heads)}
    fits = all(n in state and state[n].shape == t.shape for n, t in kept.items())
    body = {n: t for n, t in state.items() if not n.startswith(heads)}
    load_strict(model, {**body, **({n: state[n] for n in kept} if fits else kept)}, source)
