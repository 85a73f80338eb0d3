"""A frozen network cut at its last norms and in front of its head, so that what never changes is computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm.layers
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fixres.config.registry import solved_by
from fixres.errors import UserError
from fixres.models.anatomy import NORM_TYPES, head_names, upstream
from fixres.models.build import architecture, in_channels
from fixres.models.moves import Plan
from fixres.models.sizes import evaluation_mode

RELATIVE = 1e-4
"""How far a faster path may be from the network itself, relative to the largest value."""
_NUM_CHECKED = 8
"""Pictures that a faster path is compared on: a whole batch would take as long as many that are wanted."""

Crossing = tuple[Tensor, ...]


class BrokenWeightsError(UserError):
    """A network whose outputs are not finite."""


@dataclass(frozen=True)
class Cut:
    """The frozen part of a network. The last norms are the network's own modules, so new statistics apply at once."""

    head: str
    norms: tuple[str, ...]
    path: str
    """folded | traced | hooked | openvino: how it runs, the fastest that gave the network's own values."""
    features: Callable[[Tensor], Tensor]
    """Normalised images `[B, 3, S, S]` to what the head is given, `[B, D]`."""
    norm_inputs: Callable[[Tensor], Crossing]
    """Normalised images to the input of every last norm, `[B, C, h, w]` each."""
    front: Callable[[Tensor], Crossing] | None = None
    """Normalised images to everything the back needs, where the network can be cut; the norms' inputs come first."""
    back: Callable[[Crossing], Tensor] | None = None
    """What the front gave to what the head is given."""
    num_crossing: int = 0
    """Tensors the front gives."""


def linear_head(model: nn.Module) -> str:
    """Return the name of the network's one linear classifier.

    Raises:
        UserError: it has several, or one with layers of its own.
    """
    names = head_names(model)
    head = model.get_submodule(names[0])
    is_pointwise = isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1) and head.groups == 1
    if len(names) > 1 or not (isinstance(head, nn.Linear) or is_pointwise):
        what = f"{len(names)} classifiers ({', '.join(names)})" if len(names) > 1 else f"{names[0]} is no linear layer"
        raise UserError(f"the cached solver does not suit '{architecture(model)}': {what}\n  use solver: sgd")
    return names[0]


def require_linear_head(model: nn.Module, size: int) -> None:
    """Refuse a network whose logits are more, or less, than one linear layer applied to its features.

    Raises:
        BrokenWeightsError: its outputs are not finite.
        UserError: naming what it has instead.
    """
    head = linear_head(model)
    parameter = next(model.parameters())
    image = torch.linspace(-2, 2, in_channels(model) * size * size, device=parameter.device)
    with evaluation_mode(model), torch.inference_mode():
        _require_linear(model, (), head, image.view(1, -1, size, size))


def require_solvable(model: nn.Module, plan: Plan, size: int) -> None:
    """Refuse what the cached solver cannot do with a network at `size`.

    Raises:
        UserError: with what to type instead.
    """
    # A plan says what auto stands for.
    solved = [moves for moves in solved_by("cached") if moves != "auto"]
    if plan.moves not in solved:
        raise UserError(f"the cached solver moves {', '.join(solved)}, not {plan.moves}\n  use solver: sgd")
    if plan.trained:
        require_linear_head(model, size)


def _require_linear(model: nn.Module, norms: tuple[str, ...], head: str, images: Tensor) -> tuple[Tensor, Crossing]:
    """Return the features and the inputs of the norms, where the logits are the linear layer of the features."""
    features, inputs, logits = _hooked(model, norms, head, images)
    if not bool(torch.isfinite(logits).all()):
        raise BrokenWeightsError(f"the outputs of '{architecture(model)}' are not finite; its weights are broken")
    if not is_close(head_logits(model, head, features), logits):
        raise UserError(
            f"the cached solver does not suit '{architecture(model)}': its logits are more than its linear layer\n"
            "  use solver: sgd"
        )
    return features, inputs


def cut_network(model: nn.Module, norms: tuple[str, ...], images: Tensor, *, has_head: bool = True) -> Cut:
    """Cut a network in evaluation mode; each faster path is used only if it gives the network's own values.

    Args:
        model: the network; nothing of it is changed.
        norms: its last norms, whose statistics will change; none: only the head will.
        images: a normalised batch `[B, 3, S, S]` of real pictures, the first few of which it is checked with.
        has_head: whether features are wanted; without it only the inputs of the norms can be had.

    Raises:
        UserError: the head is not one linear layer applied to the features.
    """
    head = linear_head(model) if has_head else ""
    as_it_is = partial(_hooked, model, norms, head or norms[-1])
    hooked = Cut(head, norms, "hooked", lambda x: as_it_is(x)[0], lambda x: as_it_is(x)[1])
    if not has_head:
        return hooked
    images = images[:_NUM_CHECKED]
    features, inputs = _require_linear(model, norms, head, images)
    for fold in (True, False):
        try:
            made = _traced(model, norms, head, fold)
            same = is_close(made.features(images), features)
            pairs = zip(made.norm_inputs(images), inputs, strict=True)
            if same and all(is_close(a, b) for a, b in pairs):
                return made
        except Exception:  # noqa: BLE001 - networks that cannot be traced raise whatever they trip over
            continue
    return hooked


def headless(model: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what computes the features in front of a network's head.

    Another head is left to timm, which knows what comes in front of it.

    Args:
        model: the network in evaluation mode; nothing of it is changed.
        images: a normalised batch `[B, 3, S, S]` of real pictures, the first few of which it is checked with.

    Raises:
        UserError: there are no features `[B, D]` in front of a head, or outputs are not finite.
    """
    try:
        return cut_network(model, (), images).features
    except BrokenWeightsError:
        raise
    except UserError:
        pass

    def before_head(x: Tensor) -> Tensor:
        found = model.forward_head(model.forward_features(x), pre_logits=True)  # type: ignore[operator]
        found = torch.cat(found, 1) if isinstance(found, tuple | list) else found
        return found.flatten(1).float()

    try:
        before_head(images[:1])
    except Exception as error:  # networks raise whatever they trip over
        raise UserError(f"no features in front of the head of '{architecture(model)}' can be told apart") from error
    return before_head


def head_logits(model: nn.Module, head: str, features: Tensor) -> Tensor:
    """Return float32 `[B, C]` of the head alone, for features `[B, D]`."""
    layer = model.get_submodule(head)
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    return nn.functional.linear(features, weight.flatten(1), bias if isinstance(bias, Tensor) else None)


def is_close(found: Tensor, wanted: Tensor) -> bool:
    """Return whether a faster path gives the network's own values, within `RELATIVE` of the largest."""
    if found.shape != wanted.shape:
        return False
    scale = float(wanted.abs().max())
    return float((found - wanted).abs().max()) <= RELATIVE * scale


def _hooked(model: nn.Module, norms: tuple[str, ...], head: str, images: Tensor) -> tuple[Tensor, Crossing, Tensor]:
    """Run the network as it is; return features `[B, D]`, the inputs of the norms, and logits."""
    seen: dict[str, Tensor] = {}

    def remember(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            # Norms fused with an activation work in place.
            seen[name] = inputs[0].clone()

        return hook

    with ExitStack() as hooks:
        for name in (*norms, head):
            hooks.enter_context(model.get_submodule(name).register_forward_pre_hook(remember(name)))
        logits: Tensor = model(images)
    inputs = tuple(seen[name].float() for name in norms)
    return seen[head].flatten(1).float(), inputs, logits.float()


class _Tracer(fx.Tracer):
    """Records a network's calls; layers with weights and what timm says cannot be traced stay whole."""

    def __init__(self) -> None:
        found = timm.layers.get_notrace_functions()
        super().__init__(autowrap_functions=tuple(f for f in found if callable(f)))
        self.whole = (nn.Conv2d, nn.Linear, *NORM_TYPES, *timm.layers.get_notrace_modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is one call."""
        return isinstance(m, self.whole) or super().is_leaf_module(m, module_qualified_name)


def _traced(model: nn.Module, norms: tuple[str, ...], head: str, fold: bool) -> Cut:
    """Cut the recorded calls in two: what depends on no last norm, and the rest up to the head."""
    graph = _Tracer().trace(model)
    calls = {str(node.target): node for node in graph.nodes if node.op == "call_module"}
    features = calls[head].all_input_nodes[0]
    behind: set[fx.Node] = set()
    for node in graph.nodes:
        if (node.op == "call_module" and node.target in norms) or any(n in behind for n in node.all_input_nodes):
            behind.add(node)
    needed = upstream([features], lambda node: node.all_input_nodes)
    if features in behind:
        inputs = tuple(calls[name].all_input_nodes[0] for name in norms)
        used = {n for node in needed & behind for n in node.all_input_nodes if n not in behind and n.op != "get_attr"}
        crossing = (*inputs, *(n for n in graph.nodes if n in used and n not in inputs))
    else:
        crossing = (features,)
    front = _part(model, graph, (), crossing)
    if fold:
        _fold(front)
    back = _part(model, graph, crossing, (features,))

    def run_back(crossed: Crossing) -> Tensor:
        # Copied: norms fused with an activation, and residual sums, work in place.
        result: Tensor = back(*(t.clone() for t in crossed))[0]
        return result.flatten(1).float()

    return Cut(
        head,
        norms,
        "folded" if fold else "traced",
        lambda x: run_back(front(x)),
        lambda x: tuple(t.float() for t in front(x)[: len(norms)]),
        front,
        run_back,
        len(crossing),
    )


def _part(model: nn.Module, graph: fx.Graph, given: Sequence[fx.Node], wanted: Sequence[fx.Node]) -> fx.GraphModule:
    """Return the calls that compute `wanted` from `given`, or from the images where nothing is given."""
    part = fx.Graph()
    made: dict[fx.Node, fx.Node] = {node: part.placeholder(f"given_{i}") for i, node in enumerate(given)}
    needed = upstream(wanted, lambda node: () if node in made else node.all_input_nodes)
    for node in graph.nodes:
        if node in needed and node not in made:
            made[node] = part.node_copy(node, lambda n: made[n])
    part.output(tuple(made[node] for node in wanted))
    return fx.GraphModule(model, part)


def _fold(part: fx.GraphModule) -> None:
    """Multiply every BatchNorm that follows a convolution alone into it; the network keeps its own modules."""
    modules = dict(part.named_modules())
    nodes = [node for node in part.graph.nodes if node.op == "call_module"]
    calls = [str(node.target) for node in nodes]
    for node in nodes:
        source = node.args[0]
        norm = modules.get(str(node.target))
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) > 1:
            continue
        conv = modules.get(str(source.target))
        is_pair = isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats
        if not is_pair or calls.count(str(source.target)) > 1 or calls.count(str(node.target)) > 1:
            continue
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        part.set_submodule(str(source.target), fuse_conv_bn_eval(conv, norm))
        # timm's norms bring an activation along, which stays.
        kept = [child for child in (getattr(norm, "drop", None), getattr(norm, "act", None)) if child is not None]
        part.set_submodule(str(node.target), nn.Sequential(*kept))
    part.eval()
