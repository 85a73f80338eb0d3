"""timm behind one door: build a network, find its head and last norms, give it another size, count its work."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import timm
import torch
from timm.layers import (
    GroupNorm,
    GroupNorm1,
    LayerNorm,
    LayerNorm2d,
    RmsNorm,
    RmsNorm2d,
    SimpleNorm,
    SimpleNorm2d,
)
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from fixres.errors import UserError, did_you_mean
from fixres.resolution import Plan

NORM_TYPES = (
    _BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.InstanceNorm2d,
    GroupNorm,
    GroupNorm1,
    LayerNorm,
    LayerNorm2d,
    RmsNorm,
    RmsNorm2d,
    SimpleNorm,
    SimpleNorm2d,
)
MAX_SIZE = 4096
"""Largest side in pixels; beyond it one picture's activations exceed any machine's memory."""
PACKAGED_WEIGHTS = {"package:efficientnet-lite0": "tf_efficientnet_lite0"}


@cache
def architecture_names() -> frozenset[str]:
    """Return every architecture timm knows."""
    return frozenset(timm.list_models())


def build(name: str, num_classes: int, kwargs: Mapping[str, Any] | None = None, init: str = "timm") -> nn.Module:
    """Build the timm architecture `name` with random weights and a head of `num_classes`.

    Args:
        name: timm architecture, without the hub or tag prefix.
        num_classes: outputs of the head.
        kwargs: passed to timm.create_model.
        init: `timm`, `torch` (every module's own reset_parameters) or `kaiming_fan_out` (convolutions as in the
            ResNet paper, norms 1 and 0, other layers PyTorch's).

    Raises:
        UserError: unknown name, or arguments the architecture does not take.
    """
    base = name.split(".")[0]
    if base not in architecture_names():
        hint = did_you_mean(base, architecture_names())
        raise UserError(f"unknown model '{name}'{hint}\n  timm has {len(architecture_names())} architectures")
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, **(kwargs or {}))
    except (TypeError, AssertionError, RuntimeError, ValueError) as error:
        raise UserError(f"model.kwargs {dict(kwargs or {})} do not suit '{name}': {error}") from error
    initialise(model, init)
    return model


def initialise(model: nn.Module, init: str) -> None:
    """Redraw the weights in place: `torch`, `kaiming_fan_out`, or nothing for `timm`."""
    if init == "timm":
        return
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        if init == "kaiming_fan_out" and isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def fetch_pretrained(name: str) -> dict[str, Tensor]:
    """Return the weights timm publishes for `name`.

    Raises:
        UserError: there are none, or they cannot be fetched (for instance offline).
    """
    cfg = timm.models.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        raise UserError(f"timm has no pretrained weights for '{name}'\n  use model.weights: none, or a weights file")
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # hub clients raise a dozen unrelated types when offline
        source = cfg.hf_hub_id or cfg.url
        raise UserError(
            f"cannot fetch the pretrained weights of '{name}' ({type(error).__name__})\n"
            f"  they are at {source}; fetch them where there is a network and give the file:\n"
            f"  --model.weights FILE"
        ) from error
    return dict(model.state_dict())


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the classifier layers (two for distilled networks).

    Raises:
        UserError: the network has no classifier.
    """
    heads = model.get_classifier()  # type: ignore[operator]
    heads = heads if isinstance(heads, tuple | list | nn.ModuleList) else (heads,)
    found = tuple(name for name, module in model.named_modules() if any(module is head for head in heads))
    if not found or not any(True for head in heads for _ in head.parameters()):
        raise UserError(f"'{architecture(model)}' has no classifier layer; use moves: all")
    return found


def reset_head(model: nn.Module, num_classes: int) -> None:
    """Replace the head by a freshly initialised one of `num_classes`."""
    model.reset_classifier(num_classes)  # type: ignore[operator]


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
    was_training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.enable_grad():
            device = next(model.parameters()).device
            model(torch.zeros(2, in_channels(model), size, size, device=device, requires_grad=True))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in was_training.items():
            module.training = training
    followed = _norms_upstream(order)
    return tuple(name for name in order if name not in followed)


def _norms_upstream(order: Mapping[str, Any]) -> set[str]:
    """Return the norms that some later norm depends on."""
    names = {node: name for name, node in order.items()}
    seen: set[Any] = set()
    upstream: set[str] = set()
    # A norm's own internals lie upstream of its output, so start behind every norm and collect the norms met.
    stack = [parent for node in order.values() for parent, _ in node.next_functions]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in names:
            upstream.add(names[node])
        stack.extend(parent for parent, _ in node.next_functions)
    return upstream


def make_plan(model: nn.Module, moves: str, size: int) -> Plan:
    """Return which tensors a stage at `size` may move.

    Args:
        model: the network.
        moves: `all`; `head`: the classifier's parameters; `head+stats`: these, and the running statistics of the
            last norms (the published FixRes code: their affine weights stay); `auto`: head+stats where the last
            norms are BatchNorm, head otherwise.
        size: side in pixels of the stage.

    Raises:
        UserError: head+stats and the last norm keeps no running statistics.
    """
    parameters = dict(model.named_parameters())
    total = sum(p.numel() for p in parameters.values())
    if moves == "all":
        norms = tuple(n for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats)
        return Plan("all", tuple(parameters), norms, _statistics(model, norms), total, total)
    prefixes = head_names(model)
    trained = tuple(n for n in parameters if any(n == p or n.startswith(p + ".") for p in prefixes))
    norms = ()
    if moves in ("auto", "head+stats"):
        found = last_norms(model, size)
        tracked = tuple(n for n in found if _keeps_statistics(model.get_submodule(n)))
        if moves == "head+stats" and (not found or tracked != found):
            what = ", ".join(f"{n} ({type(model.get_submodule(n)).__name__})" for n in found if n not in tracked)
            reason = f"{what} keeps no running statistics" if found else "it has no norm"
            raise UserError(
                f"moves head+stats does not suit '{architecture(model)}': {reason}\n  use moves: head, or moves: all"
            )
        norms = tracked if tracked == found else ()
        moves = "head+stats" if norms else "head"
    num_trained = sum(parameters[n].numel() for n in trained)
    return Plan(moves, trained, norms, _statistics(model, norms), num_trained, total)


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.track_running_stats


def _statistics(model: nn.Module, norms: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{norm}.{name}" for norm in norms for name, _ in model.get_submodule(norm).named_buffers())


def architecture(model: nn.Module) -> str:
    """Return the timm name the network was built with."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    return str(cfg.get("architecture", type(model).__name__))


def published_config(model: nn.Module) -> dict[str, Any]:
    """Return timm's configuration of the network without the address of weights it no longer holds."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    kept = ("tag", "custom_load", "fixed_input_size", "min_input_size", "pool_size", "first_conv", "classifier")
    return {key: cfg[key] for key in kept if cfg.get(key) is not None}


def in_channels(model: nn.Module) -> int:
    """Return the number of input channels."""
    return int((getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 0, 0))[0])


def default_size(model: nn.Module) -> int:
    """Return the size in pixels timm states for the network's training."""
    return int((getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))[-1])


@dataclass(frozen=True)
class InputStatistics:
    """What the network's inputs were normalised with when its published weights were trained."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"]


def input_statistics(model: nn.Module) -> InputStatistics:
    """Return the mean, standard deviation and interpolation of timm's configuration for the network."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    mean = tuple(cfg.get("mean", (0.485, 0.456, 0.406)))
    std = tuple(cfg.get("std", (0.229, 0.224, 0.225)))
    interpolation: Literal["bilinear", "bicubic"] = "bicubic" if cfg.get("interpolation") == "bicubic" else "bilinear"
    return InputStatistics(mean, std, interpolation)


def at_size(model: nn.Module, size: int) -> nn.Module:
    """Return the network ready for inputs `[B, 3, size, size]`: itself, or a resized copy for position embeddings.

    Raises:
        UserError: the architecture cannot take the size; the message lists the nearest that it can.
    """
    if not 1 <= size <= MAX_SIZE:
        raise UserError(f"size {size}: give a number of pixels from 1 to {MAX_SIZE}")
    candidate = model
    try:
        if bound_size(model) not in (None, size):
            candidate = copy.deepcopy(model)
            candidate.set_input_size(img_size=size)  # type: ignore[operator]
        probe(candidate, size)
    except (RuntimeError, AssertionError, ValueError, AttributeError, IndexError) as error:
        legal = legal_sizes(model, size)
        allowed = f"it takes {', '.join(map(str, legal))}" if legal else "no size near it works either"
        raise UserError(
            f"'{architecture(model)}' cannot take {size} px\n  {allowed}\n"
            f"  ({type(error).__name__}: {_first_line(error)})"
        ) from error
    return candidate


def bound_size(model: nn.Module) -> int | None:
    """Return the size a network with a position grid is built for, or None when it takes any."""
    if not hasattr(model, "set_input_size"):
        return None
    for module in itertools.chain([getattr(model, "patch_embed", model)], model.modules()):
        size = getattr(module, "img_size", None)
        if isinstance(size, tuple):
            return int(size[0])
        if isinstance(size, int):
            return size
    return None


def legal_sizes(model: nn.Module, near: int, count: int = 4) -> list[int]:
    """Return up to `count` sizes closest to `near`, multiples of 8, that the architecture can take."""
    legal = []
    for size in sorted(range(max(8, near // 2 // 8 * 8), 2 * near + 9, 8), key=lambda s: abs(s - near)):
        candidate = model
        try:
            if bound_size(model) is not None:
                candidate = copy.deepcopy(model)
                candidate.set_input_size(img_size=size)  # type: ignore[operator]
            probe(candidate, size)
        except (RuntimeError, AssertionError, ValueError, AttributeError, IndexError):
            continue
        legal.append(size)
        if len(legal) == count:
            break
    return sorted(legal)


def probe(model: nn.Module, size: int) -> None:
    """Run one zero image `[1, 3, size, size]` through the network in evaluation mode and check its output's shape."""
    training = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    try:
        model.eval()
        with torch.inference_mode():
            output = model(torch.zeros(1, in_channels(model), size, size, device=device))
    finally:
        for module, mode in training.items():
            module.training = mode
    if not isinstance(output, Tensor) or output.dim() != 2:
        raise ValueError(f"the output is not one row of logits but {getattr(output, 'shape', type(output))}")


def gmacs(model: nn.Module, size: int) -> float:
    """Return billions of multiply-adds for one image at `size` (half of PyTorch's flop count)."""
    counter = FlopCounterMode(display=False)
    with counter:
        probe(model, size)
    return counter.get_total_flops() / 2e9


def load_strict(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into the network: every tensor, the same names, the same shapes.

    Raises:
        UserError: lists what is missing, unexpected or of another shape; nothing has been loaded then.
    """
    own = model.state_dict()
    # BatchNorm's counter is absent from files older than PyTorch 0.4 and means nothing to the output.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    shapes = [
        f"{k}: {list(state[k].shape)} in the file, {list(own[k].shape)} in the network"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    if missing or unexpected or shapes:
        lines = [f"{source} does not fit '{architecture(model)}'"]
        for what, names in (("missing", missing), ("unexpected", unexpected), ("another shape", shapes)):
            if names:
                more = f", and {len(names) - 6} more" if len(names) > 6 else ""
                lines.append(f"  {what} ({len(names)}): {', '.join(names[:6])}{more}")
        raise UserError("\n".join(lines))
    model.load_state_dict(state, strict=not any(k not in state for k in own))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120]
