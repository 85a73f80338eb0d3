"""Fitting a foreign file to a network: its names, and its optimizer's state by name instead of by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fixres.checkpoints.foreign.layouts import Found
from fixres.checkpoints.foreign.lukemelas import from_lukemelas
from fixres.errors import UserError
from fixres.models.anatomy import head_names
from fixres.models.build import architecture

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_ENTRIES = frozenset({"momentum_buffer", "exp_avg", "exp_avg_sq", "step"})


def fit(
    state: Mapping[str, Tensor], model: nn.Module, source: str, ordered: bool = True
) -> tuple[dict[str, Tensor], str]:
    """Return `state` under the network's own names, with a note on what was renamed ("" when nothing was).

    Two families are known by the shape of their names: the EfficientNets of efficientnet_pytorch, and files of
    Cadene's pretrainedmodels, whose classifier is `last_linear`. What stands in front of the network's own names is
    removed, and what else is in the file left out. Everything else stays as it is. A classifier that is
    missing, or for another number of classes, is left to the caller. `ordered`: whether the order of the tensors is
    that of the network that was saved.

    Raises:
        UserError: the names are those of a known family, but not of this network; or several networks are this one.
    """
    if "_conv_stem.weight" in state:
        if not architecture(model).startswith("tf_efficientnet_"):
            # timm's own efficientnet_b0 takes the same tensors, but pads and normalises differently.
            raise UserError(
                f"{source} holds an EfficientNet under efficientnet_pytorch's names, not "
                f"'{architecture(model)}'\n  --model tf_efficientnet_b0, or the variant it is"
            )
        renamed = from_lukemelas(state, model, source, head=False, ordered=ordered)
        return renamed, "renamed from efficientnet_pytorch's names to timm's"
    own, left_out = _only_network(state, model, source)
    own, new_head = _with_own_head_name(own, model)
    return own, "; ".join(note for note in (left_out, new_head) if note)


def _only_network(state: Mapping[str, Tensor], model: nn.Module, source: str) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of the one network in the file that is this one, without what stands in front of their names.

    Where the names fit as they are, or nothing in the file fits, everything stays as it is.

    Raises:
        UserError: several networks in the file are this one.
    """
    body = _body(model)
    if body <= state.keys() or not body:
        return dict(state), ""
    prefixes = {name[: place + 1] for name in state for place, sign in enumerate(name) if sign == "."}
    found = sorted(prefix for prefix in prefixes if all(prefix + name in state for name in body))
    if not found:
        return dict(state), ""
    if len(found) > 1:
        listed = ", ".join(f"{prefix}*" for prefix in found)
        raise UserError(
            f"{source} holds {len(found)} networks that fit: {listed}\n"
            "  save one of them alone, without what stands in front of its names, and give that file"
        )
    own = {name.removeprefix(found[0]): tensor for name, tensor in state.items() if name.startswith(found[0])}
    others = dict.fromkeys(name.partition(".")[0] for name in state if not name.startswith(found[0]))
    note = f"removed the prefix {found[0]}"
    return own, note + (f"; left out {', '.join(others)}, which are no part of this network" if others else "")


def _body(model: nn.Module) -> set[str]:
    """Return the names of the tensors that every file of this network holds: all but its heads and counters."""
    heads = tuple(f"{head}." for head in head_names(model))
    return {name for name in model.state_dict() if not name.startswith(heads) and not name.endswith(_BUFFERS[2])}


def _with_own_head_name(state: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], str]:
    own = model.state_dict()
    theirs = [name for name in ("last_linear.weight", "last_linear.bias") if name in state and name not in own]
    if not theirs:
        return dict(state), ""
    heads = head_names(model)
    renamed = {name: name.replace("last_linear", heads[0], 1) for name in theirs}
    if len(heads) != 1 or any(new in state or new not in own for new in renamed.values()):
        return dict(state), ""
    return (
        {renamed.get(name, name): tensor for name, tensor in state.items()},
        f"renamed the classifier from last_linear to {heads[0]}",
    )


def named_optimizer_state(found: Found, parameter_shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return {"PARAMETER.momentum_buffer": tensor} (or exp_avg, exp_avg_sq, step) of the file's optimizer.

    The file numbers its parameters in the order in which its network registered them, which is the order of its own
    state dict without the buffers. That order differs between implementations whose names are equal, so the i-th
    state belongs to the i-th name in the file, never to the i-th parameter of the network here. Parameters without
    state (frozen ones, or SGD without momentum) are left out.

    Args:
        found: an opened checkpoint with raw weights.
        parameter_shapes: shapes of the network's parameters by name, in any order.

    Raises:
        UserError: the order is unknown, or the state does not belong to these parameters.
    """
    if found.optimizer is None:
        raise UserError(f"{found.path} holds no optimizer state")
    if not found.ordered:
        raise _refused(found, "a safetensors file keeps no order of its tensors")
    order = _order(found, set(parameter_shapes))
    groups, states = _parts(found)
    numbers = [number for group in groups for number in group["params"]]
    if numbers != list(range(len(numbers))):
        raise _refused(found, "its parameter groups are not numbered in the order of the network")
    if len(numbers) != len(order):
        raise _refused(found, f"it was made for {len(numbers)} parameters, the network has {len(order)}")
    named: dict[str, Tensor] = {}
    for number, entries in states.items():
        if not isinstance(number, int) or not 0 <= number < len(order):
            raise _refused(found, f"it has state for a parameter '{number}' that no group holds")
        named |= _entries(found, order[number], entries, tuple(parameter_shapes[order[number]]))
    if not named:
        raise _refused(found, "it has momentum for no parameter")
    checked = {name.rpartition(".")[0] for name in named if not name.endswith(".step")}
    if len(groups) > 1 and len(checked) < len(order):
        # Groups may number the parameters out of order; only the shapes of all of them together rule that out.
        raise _refused(found, f"it has {len(groups)} parameter groups and state for {len(checked)} of {len(order)}")
    return named


def _order(found: Found, wanted: set[str]) -> list[str]:
    """Return the parameters in the order in which the file's own network registered them."""
    if "raw" not in found.weights:
        raise _refused(found, "the raw weights, whose order it follows, are not in the file")
    names = list(found.weights["raw"])
    order = [name for name in names if name in wanted]
    strange = [n for n in names if n not in wanted and n.rpartition(".")[2] not in _BUFFERS]
    absent = sorted(wanted - set(order))
    if strange or absent:
        raise _refused(
            found,
            f"its parameters are not the network's (only in the file: {', '.join(strange[:3]) or 'none'}; "
            f"only in the network: {', '.join(absent[:3]) or 'none'})",
        )
    return order


def _parts(found: Found) -> tuple[list[Any], dict[Any, Any]]:
    content = found.optimizer or {}
    groups, states = content.get("param_groups"), content.get("state")
    plain = isinstance(groups, list) and all(isinstance(g, dict) and isinstance(g.get("params"), list) for g in groups)
    if not isinstance(groups, list) or not plain or not isinstance(states, dict):
        raise _refused(found, f"it is not of PyTorch's form (it holds: {', '.join(map(str, list(content)[:6]))})")
    return groups, states


def _entries(found: Found, name: str, entries: Any, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Return one parameter's state under its name."""
    if not isinstance(entries, dict) or not set(entries) <= _ENTRIES:
        held = ", ".join(map(str, list(entries)[:6])) if isinstance(entries, dict) else type(entries).__name__
        raise _refused(found, f"'{name}' has {held}; known are {', '.join(sorted(_ENTRIES))}")
    named = {}
    for entry, value in entries.items():
        if value is None:  # SGD writes None where it keeps no momentum
            continue
        if entry == "step" and isinstance(value, int | float):
            value = torch.tensor(float(value))
        expected = () if entry == "step" else shape
        if not isinstance(value, Tensor) or tuple(value.shape) != expected:
            what = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise _refused(found, f"the {entry} of '{name}' is {what}, the parameter {list(expected)}")
        named[f"{name}.{entry}"] = value
    return named


def _refused(found: Found, reason: str) -> UserError:
    return UserError(
        f"the optimizer state in {found.path} cannot be given to this network: {reason}\n"
        "  leave it out and start with a new optimizer"
    )
