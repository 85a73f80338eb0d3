"""What a checkpoint holds: the layouts that training programs write, told apart without guessing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fixres.errors import UserError, counted
from fixres.io import safe_load

RAW_KEYS = ("state_dict", "model_state_dict", "model", "net", "weights")
EMA_KEYS = ("ema_state_dict", "state_dict_ema", "model_ema", "model_ema_state_dict", "ema")
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "network.")
"""Prefixes that wrappers add; removed where every name has them, one after another."""
EMA_PREFIXES = ("ema_model.", "model_ema.", "ema.", "averaged_model.", "average_model.")
"""What stands in front of the names of an average that is in one dictionary with the network it follows."""

_WRAPPERS = {"module.": "DataParallel", "_orig_mod.": "torch.compile"}
_MOCO_DIMENSION = 128
_OF_RUN = ("format", "preprocess", "recipe", "size")
_ALLOWED = (
    f"  allowed: a flat dictionary of tensors, or one under {', '.join(RAW_KEYS)}\n"
    f"  (averaged weights under {', '.join(EMA_KEYS)}); save one of these, and give that file"
)


@dataclass(frozen=True)
class Found:
    """What a checkpoint was found to hold."""

    path: Path
    layout: str
    """Short name: flat, safetensors, model, state_dict, resnext-pytorch, fixres-paper, timm, torchvision, lightning,
    moco, fixres, module."""
    description: str
    """One sentence for people."""
    weights: dict[str, dict[str, Tensor]]
    """`raw` and/or `ema`: flat, prefixes removed, in the order of the file."""
    dropped: dict[str, str] = field(default_factory=dict)
    """{what was left out: why}."""
    optimizer: dict[str, Any] | None = None
    """The optimizer's state dict, as the file has it."""
    class_names: tuple[str, ...] = ()
    num_classes: int | None = None
    """As the file says in words; never counted from a classifier."""
    architecture: str = ""
    """As the file says; another project's spelling."""
    ordered: bool = True
    """Whether the order of the tensors is that of the network that was saved."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """What a training state of our own says beside its tensors; empty for other files."""


@dataclass
class _Reading:
    """What is collected while a layout is read."""

    path: Path
    removed: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)


def open_checkpoint(path: Path, trust: bool = False) -> Found:
    """Read a file safely and tell its layout.

    Args:
        path: .pt, .pth, .pth.tar, .ckpt or .safetensors; the content counts, not the name.
        trust: run the code a pickle asks for; see fixres.io.safe_load.read_checkpoint.

    Raises:
        UserError: it cannot be read safely, holds no tensors, or could mean more than one thing.
    """
    content = safe_load.read_checkpoint(path, trust=trust)
    reading = _Reading(path)
    if isinstance(content, nn.Module):
        state = _flat(content, "the network", reading)
        return _found(reading, "module", "a whole pickled network", {"raw": state}, {})
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds {_kind(content)}, not a dictionary with tensors\n{_ALLOWED}")
    raw = [key for key in RAW_KEYS if _holds_weights(content.get(key))]
    ema = [key for key in EMA_KEYS if _holds_weights(content.get(key))]
    if _is_own(content):
        raw = ["model"]
        ema = ["average"] if content["average"] else []
        if content.get("best_weights"):
            reading.dropped["best_weights"] = "the best of the stage so far; give the run folder to get them"
    if len(raw) > 1 or len(ema) > 1:
        several = ", ".join(raw if len(raw) > 1 else ema)
        raise UserError(f"{path} holds weights under several keys: {several}\n  keep one of them, and give that file")
    if not raw and not ema:
        return _open_flat(content, reading)
    weights = {}
    for label, keys in (("raw", raw), ("ema", ema)):
        if keys:
            weights[label] = _flat(content[keys[0]], f"'{keys[0]}'", reading)
    others = [key for key in content if isinstance(key, str) and key not in raw + ema + list(reading.dropped)]
    layout, title = _title(content, raw, ema, reading)
    return _found(reading, layout, f"{title}: {', '.join(raw + ema + others[:8])}", weights, content)


def choose(found: Found, which: str | None) -> tuple[str, dict[str, Tensor]]:
    """Return the label and the tensors of the asked weights; None: raw, or the average when there is nothing else.

    Raises:
        UserError: the file does not hold them.
    """
    label = which or ("raw" if "raw" in found.weights else "ema")
    if label not in found.weights:
        raise UserError(
            f"{found.path} holds no '{label}' weights; it holds {' and '.join(found.weights)}\n"
            f"  --weights {next(iter(found.weights))}"
        )
    return label, found.weights[label]


def untrained_statistics(state: Mapping[str, Tensor]) -> bool:
    """Return whether every BatchNorm still has its initial statistics: mean 0 and variance 1.

    Averages made by PyTorch before 2.0 left them so; such weights classify at random in evaluation mode. False for a
    network without statistics.
    """
    means = [tensor for name, tensor in state.items() if name.endswith("running_mean")]
    variances = [tensor for name, tensor in state.items() if name.endswith("running_var")]
    initial = all(not t.any() for t in means) and all(bool((t == 1).all()) for t in variances)
    return bool(means) and initial


def _open_flat(content: dict[Any, Any], reading: _Reading) -> Found:
    """Read a dictionary without a known key for weights: it must consist of tensors."""
    tensors = sum(isinstance(value, Tensor) for value in content.values())
    if tensors == len(content):
        safe = _is_safetensors(reading.path)
        label = "ema" if "n_averaged" in content else "raw"
        title = "a safetensors file" if safe else "a flat dictionary"
        state = _flat(content, "the file", reading)
        layout = "safetensors" if safe else "flat"
        if any("MoCo" in why for why in reading.dropped.values()):
            layout, title = "moco", "a MoCo encoder"
        if label == "ema":
            title += " of averaged weights"
        return _found(reading, layout, f"{title}: {len(state)} tensors", {label: state}, {})
    keys = ", ".join(f"{key} ({_kind(value)})" for key, value in list(content.items())[:8])
    more = f" and {len(content) - 8} more" if len(content) > 8 else ""
    what = "mixes tensors with other values" if tensors else "holds no weights where they are known to be"
    raise UserError(f"{reading.path} {what}\n  it holds: {keys[:600]}{more}\n{_ALLOWED}")


def _flat(value: Any, where: str, reading: _Reading) -> dict[str, Tensor]:
    """Return a dictionary of tensors without wrappers' prefixes and without what is no part of the network.

    Raises:
        UserError: something in it is not a tensor under a name.
    """
    if isinstance(value, nn.Module):
        value = value.state_dict()
        safe_load.check_tensors(value, str(reading.path))
    # The counter of an average is a number in some programs' files and a tensor in others'.
    value = {k: v for k, v in value.items() if not (k == "n_averaged" and isinstance(v, int))}
    strange = [f"{k} ({_kind(v)})" for k, v in value.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
    if strange or not value:
        listed = ", ".join(strange[:6]) or "nothing"
        raise UserError(f"{reading.path}: {where} must hold tensors by name; it holds {listed}\n{_ALLOWED}")
    state = {name: tensor.detach() for name, tensor in value.items()}
    if "n_averaged" in state:
        del state["n_averaged"]
        reading.dropped["n_averaged"] = "the average's counter"
    state = _without_losses(_without_prefixes(state, reading), reading)
    state = _without_moco(_without_prefixes(state, reading), reading)
    if not state:
        raise UserError(f"{reading.path}: {where} holds no tensors of a network\n{_ALLOWED}")
    return state


def _without_prefixes(state: dict[str, Tensor], reading: _Reading) -> dict[str, Tensor]:
    """Remove prefixes that all names share, for as long as there are any."""
    while True:
        shared = (p for p in PREFIXES if state and all(n.startswith(p) and n != p for n in state))
        prefix = next(shared, None)
        if prefix is None:
            return state
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        label = f"{prefix} ({_WRAPPERS[prefix]})" if prefix in _WRAPPERS else prefix
        if label not in reading.removed:
            reading.removed.append(label)


def _with_average_apart(state: dict[str, Tensor], reading: _Reading) -> dict[str, dict[str, Tensor]]:
    """Return raw and averaged weights of a module that holds both, as Lightning saves it; else the raw ones alone."""
    average: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    for name, tensor in state.items():
        prefix = next((p for p in EMA_PREFIXES if name.startswith(p)), "")
        (average if prefix else rest)[name.removeprefix(prefix)] = tensor
    trial = _Reading(reading.path)
    raw = _without_prefixes(rest, trial)
    # Averages keep counters and rates beside the weights, numbers without a dimension.
    weights = {name: tensor for name, tensor in average.items() if tensor.dim() or name.endswith("num_batches_tracked")}
    ema = _without_prefixes(weights, trial)
    if not raw or raw.keys() != ema.keys():
        return {"raw": state}
    reading.removed += [prefix for prefix in trial.removed if prefix not in reading.removed]
    return {"raw": raw, "ema": ema}


def _without_losses(state: dict[str, Tensor], reading: _Reading) -> dict[str, Tensor]:
    """Leave out what a loss keeps beside the network, as Lightning saves it: the weights of the classes."""
    names = [name for name in state if re.match(r"(criterion|\w*loss)\w*\.", name)]
    if len(names) in (0, len(state)):
        return state
    for part in dict.fromkeys(name.partition(".")[0] for name in names):
        count = sum(name.startswith(f"{part}.") for name in names)
        reading.dropped[f"{part}.* ({counted(count, 'tensor')})"] = "the loss's own, no part of the network"
    return {name: tensor for name, tensor in state.items() if name not in names}


def _without_moco(state: dict[str, Tensor], reading: _Reading) -> dict[str, Tensor]:
    """Keep the query encoder of MoCo without its projection head, which is no classifier."""
    query = "encoder_q."
    if any(name.startswith(query) for name in state):
        for what, pattern, why in (
            ("encoder_k.*", r"encoder_k\.", "MoCo's key encoder"),
            ("queue*", r"queue", "MoCo's queue of keys"),
            ("others", rf"(?!{re.escape(query)}|encoder_k\.|queue)", "no part of MoCo's query encoder"),
        ):
            count = sum(re.match(pattern, name) is not None for name in state)
            if count:
                reading.dropped[f"{what} ({counted(count, 'tensor')})"] = why
        state = {name.removeprefix(query): t for name, t in state.items() if name.startswith(query)}
        reading.removed.append(query)
        head = [name for name in state if name.startswith("fc.")]
    else:
        head = _stripped_moco_head(state)
    if head:
        reading.dropped[f"fc.* ({counted(len(head), 'tensor')})"] = "MoCo's projection head, no classifier"
    return {name: tensor for name, tensor in state.items() if name not in head}


def _stripped_moco_head(state: dict[str, Tensor]) -> list[str]:
    """Return the names of a MoCo v2 projection head in a plain ResNet: [F, F] and [128, F], where fc would be."""
    first, second = state.get("fc.0.weight"), state.get("fc.2.weight")
    head = [name for name in state if name.startswith("fc.")]
    parts = {"fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias"}
    if first is None or second is None or set(head) != parts or "layer4.0.conv1.weight" not in state:
        return []
    square = first.dim() == 2 and first.shape[0] == first.shape[1]
    return head if square and tuple(second.shape) == (_MOCO_DIMENSION, first.shape[0]) else []


def _title(content: dict[Any, Any], raw: list[str], ema: list[str], reading: _Reading) -> tuple[str, str]:
    """Return the short name and the words for a dictionary that has weights under a known key."""
    keys = {key for key in content if isinstance(key, str)}
    epoch = content.get("epoch")
    at = f" (epoch {epoch})" if type(epoch) is int else ""
    if _is_own(content):
        return "fixres", f"a fixres training state (stage {content['stage_index']}, step {content['step']})"
    if any("MoCo" in why for why in reading.dropped.values()):
        return "moco", f"a MoCo checkpoint{at}"
    if ema == ["ema_state_dict"]:
        return "resnext-pytorch", f"a ResNeXt-PyTorch training checkpoint{at}"
    if {"accuracy", "optimizer", "lr_scheduler"} <= keys and raw == ["model"]:
        return "fixres-paper", f"a checkpoint of the FixRes authors' code{at}"
    if "pytorch-lightning_version" in keys:
        return "lightning", f"a Lightning checkpoint{at}"
    if "state_dict_ema" in keys or (raw == ["state_dict"] and {"arch", "metric"} & keys and "version" in keys):
        return "timm", f"a timm training checkpoint{at}"
    if raw == ["model"] and "lr_scheduler" in keys:
        return "torchvision", f"a training checkpoint in torchvision's layout{at}"
    return (raw or ema)[0], f"a dictionary with weights{at}"


def _found(
    reading: _Reading, layout: str, description: str, weights: dict[str, dict[str, Tensor]], content: dict[Any, Any]
) -> Found:
    if set(weights) == {"raw"}:
        weights = _with_average_apart(weights["raw"], reading)
    if reading.removed:
        description += f"; removed the prefix {', '.join(reading.removed)}"
    names = _class_names(content)
    options = content.get("args")
    declared = content.get("num_classes") or getattr(options, "num_classes", None)
    architecture = content.get("arch") or getattr(options, "model", None)
    return Found(
        path=reading.path,
        layout=layout,
        description=description,
        weights=weights,
        dropped=dict(reading.dropped),
        optimizer=_optimizer(content),
        class_names=names,
        num_classes=len(names) or (declared if type(declared) is int else None),
        architecture=architecture if isinstance(architecture, str) else "",
        ordered=layout != "safetensors" and not _is_safetensors(reading.path),
        run={key: content[key] for key in _OF_RUN if key in content} if _is_own(content) else {},
    )


def _holds_weights(value: Any) -> bool:
    """Return whether a value under a key for weights is meant as weights: a network, or tensors however nested.

    A dictionary of settings under `model` is not.
    """
    if not isinstance(value, dict):
        return isinstance(value, nn.Module)
    inner = (v for child in value.values() for v in (child.values() if isinstance(child, dict) else (child,)))
    return any(isinstance(v, Tensor | nn.Module) for v in inner)


def _is_own(content: dict[Any, Any]) -> bool:
    return {"format", "stage_index", "step", "model", "average", "best_weights"} <= set(map(str, content))


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _class_names(content: dict[Any, Any]) -> tuple[str, ...]:
    for key in ("classes", "class_names"):
        names = content.get(key)
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return ()


def _optimizer(content: dict[Any, Any]) -> dict[str, Any] | None:
    optimizer = content.get("optimizer", content.get("optimizer_state_dict"))
    if (
        optimizer is None
        and isinstance(content.get("optimizer_states"), list)
        and len(content["optimizer_states"]) == 1
    ):
        optimizer = content["optimizer_states"][0]
    return optimizer if isinstance(optimizer, dict) and optimizer else None


def _kind(value: Any) -> str:
    """Return what a value is, in a word or two."""
    if isinstance(value, dict):
        return f"dictionary of {len(value)}"
    if isinstance(value, Tensor):
        return f"tensor {list(value.shape)}" if value.dtype != torch.bool else "tensor of flags"
    return "nothing" if value is None else type(value).__name__
