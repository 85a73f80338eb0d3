"""Find the head and the last norms of any network, and say which tensors a stage may move."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import timm.layers
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fixres.errors import UserError
from fixres.models.build import architecture, build_model, in_channels, load_strict
from fixres.models.last_stage import is_inside, last_stage
from fixres.models.sizes import evaluation_mode
from fixres.resolution import Plan, matching

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
    found = [name for name, module in model.named_modules() if id(module) in layers and _has_parameters(module)]
    # VOLO's second classifier, whose logits are added to the first's, is in the configuration only.
    stated = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    for name in (stated,) if isinstance(stated, str) else stated:
        overlaps = any(f"{name}.".startswith(f"{head}.") or head.startswith(f"{name}.") for head in found)
        if not overlaps and _has_parameters(dict(model.named_modules()).get(name)):
            found.append(name)
    if not found:
        raise UserError(f"'{architecture(model)}' has no classifier layer; use moves: all")
    return tuple(found)


def _has_parameters(module: nn.Module | None) -> bool:
    return module is not None and any(True for _ in module.parameters())


def class_tensors(name: str, kwargs: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Return {tensor: dimension} of every tensor whose size follows the number of classes."""
    with torch.device("meta"):
        first, second = (build_model(name, num_classes, kwargs).state_dict() for num_classes in (1000, 1001))
    return {
        key: next(d for d, (a, b) in enumerate(zip(tensor.shape, second[key].shape, strict=True)) if a != b)
        for key, tensor in first.items()
        if tensor.shape != second[key].shape
    }


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


def last_norms(model: nn.Module, size: int) -> tuple[str, ...]:
    """Return the norms on whose output no other norm depends, in execution order.

    One for most networks; several where branches end in norms of their own; none for a network without norms. Found
    by walking the graph of one forward pass `[2, 3, size, size]`, so neither names nor definition order matter.
    """
    order: dict[str, Any] = {}
    hooks = []

    def remember(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.grad_fn is not None:
                order.pop(name, None)
                order[name] = output.grad_fn

        return hook

    for name, module in model.named_modules():
        if isinstance(module, NORM_TYPES):
            hooks.append(module.register_forward_hook(remember(name)))
    try:
        with evaluation_mode(model), torch.enable_grad():
            device = next(model.parameters()).device
            output = model(torch.zeros(2, in_channels(model), size, size, device=device, requires_grad=True))
    finally:
        for hook in hooks:
            hook.remove()
    followed = _norms_upstream(order, after=order.values())
    # Some networks also compute what their logits do not use.
    used = _norms_upstream(order, after=(), start=output.grad_fn) if isinstance(output, Tensor) else set(order)
    return tuple(name for name in order if name not in followed and name in used)


def _norms_upstream(order: Mapping[str, Any], after: Iterable[Any], start: Any = None) -> set[str]:
    """Return the norms that `start`, or anything strictly behind the nodes `after`, is computed from."""
    names = {node: name for name, node in order.items()}
    seen: set[Any] = set()
    upstream: set[str] = set()
    # A norm's own internals lie upstream of its output, so start behind every norm and collect the norms met.
    stack = [parent for node in after for parent, _ in node.next_functions] + [start]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in names:
            upstream.add(names[node])
        stack.extend(parent for parent, _ in node.next_functions)
    return upstream


def make_plan(model: nn.Module, moves: str, size: int, freeze: Sequence[str] = ()) -> Plan:
    """Return which tensors a stage at `size` may move.

    Args:
        model: the network.
        moves: `all`; `head`: the classifier's parameters; `head+stats`: these, and the running statistics of the
            last norms (the published FixRes code: their affine weights stay); `head+norm`: these, the statistics and
            the affine weights of the last norms (the words of the paper); `last-stage`: head, last norms and the
            last stage whole (PNASNet in the paper); `stats`: the statistics alone, which needs no labels; `auto`:
            head+stats where the last norms are BatchNorm, head otherwise.
        size: side in pixels of the stage.
        freeze: module names and name patterns of parameters that stay as they are all the same; with `all` only.

    Raises:
        UserError: the network has no norm, statistics or stage of the kind, and the message names what suits it; a
            pattern that matches nothing, or patterns that leave nothing to train.
    """
    parameters = dict(model.named_parameters())
    total = sum(p.numel() for p in parameters.values())
    if moves == "all":
        kept = matching(parameters, freeze)
        trained = tuple(n for n in parameters if n not in kept)
        if not trained:
            raise UserError(f"freeze {', '.join(freeze)} leaves nothing of '{architecture(model)}' to train")
        frozen = _frozen_modules(model, kept)
        norms = tuple(name for name in _with_statistics(model, "") if not is_inside(name, frozen))
        num_trained = sum(parameters[n].numel() for n in trained)
        return Plan("all", trained, norms, _statistics(model, norms), num_trained, total, frozen=frozen)
    assert not freeze, "only moves all has anything to freeze"
    found = last_norms(model, size) if moves != "head" else ()
    norms = tuple(name for name in found if _keeps_statistics(model.get_submodule(name)))
    if moves in ("head+stats", "stats") and (not found or norms != found):
        raise _without_statistics(model, moves, found, norms)
    if moves == "head+norm" and not any(_has_parameters(model.get_submodule(name)) for name in found):
        reason = "its last norm has no weights" if found else "it has no norm"
        raise UserError(
            f"moves head+norm does not suit '{architecture(model)}': {reason}\n  use moves: head, last-stage or all"
        )
    if moves == "auto":
        norms = norms if norms == found else ()
        moves = "head+stats" if norms else "head"
    heads = head_names(model) if moves != "stats" else ()
    whole = last_stage(model, size, heads) if moves == "last-stage" else ()
    wanted = (*heads, *whole, *(found if moves in ("head+norm", "last-stage") else ()))
    trained = tuple(n for n in parameters if any(n == module or n.startswith(f"{module}.") for module in wanted))
    live = dict.fromkeys(name for module in whole for name in _with_statistics(model, module))
    norms = tuple(live | dict.fromkeys(norms))
    num_trained = sum(parameters[n].numel() for n in trained)
    return Plan(moves, trained, norms, _statistics(model, norms), num_trained, total, whole)


def _without_statistics(model: nn.Module, moves: str, found: tuple[str, ...], tracked: tuple[str, ...]) -> UserError:
    what = ", ".join(f"{n} ({type(model.get_submodule(n)).__name__})" for n in found if n not in tracked)
    reason = f"{what} keeps no running statistics" if found else "it has no norm"
    others = "head, head+norm or all" if found else "head, or moves: all"
    return UserError(f"moves {moves} does not suit '{architecture(model)}': {reason}\n  use moves: {others}")


def _with_statistics(model: nn.Module, inside: str) -> tuple[str, ...]:
    """Return the norms with running statistics in a module, or in all of the network."""
    modules = model.get_submodule(inside).named_modules(prefix=inside)
    return tuple(name for name, module in modules if _keeps_statistics(module))


def _frozen_modules(model: nn.Module, kept: frozenset[str]) -> tuple[str, ...]:
    """Return the outermost modules that have parameters, all of them in `kept`."""
    frozen: list[str] = []
    for name, module in model.named_modules():
        own = [f"{name}.{parameter}" for parameter, _ in module.named_parameters()]
        if name and own and kept.issuperset(own) and not is_inside(name, frozen):
            frozen.append(name)
    return tuple(frozen)


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.track_running_stats


def _statistics(model: nn.Module, norms: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{norm}.{name}" for norm in norms for name, _ in model.get_submodule(norm).named_buffers())
