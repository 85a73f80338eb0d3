"""Build a network with a head of its own, its weights loaded strictly, and say how it wants to be fed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import timm.layers
import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fixres.errors import UserError
from fixres.models.names import canonical

_NOT_OF_THE_NETWORK = frozenset(
    {
        "cache_dir",
        "checkpoint_path",
        "device",
        "dtype",
        "exportable",
        "features_only",
        "no_jit",
        "num_classes",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_filter_fn",
        "pretrained_strict",
        "scriptable",
    }
)
"""What timm.create_model also takes: files to read, addresses, ways of building."""
_AS_PUBLISHED = {"fbnetc_100": {"bn_eps": 1e-3}}
"""What timm passes only together with published weights, and which decides what every weight means."""
_RANDOM = frozenset(
    {
        Tensor.normal_,
        Tensor.uniform_,
        Tensor.erfinv_,  # a truncated normal distribution is made of a uniform one
        nn.init.kaiming_normal_,
        nn.init.kaiming_uniform_,
        nn.init.normal_,
        nn.init.uniform_,
    }
)
"""What draws the values of a new network."""
_SCALING = frozenset({Tensor.mul_, Tensor.add_, Tensor.clamp_})
"""What else is done to them, and means nothing where there are none."""


class RandomValuesLeftOut(TorchFunctionMode):
    """Builds networks without drawing random values while it is entered, for those whose every value is then loaded.

    Drawing them takes longer than reading them from a disk. Constants are set as ever, since some are in no file.
    """

    def __init__(self, is_on: bool = True) -> None:
        """Leave them out only where `is_on`."""
        super().__init__()
        self.is_on = is_on

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.is_on and (func in _RANDOM or (func in _SCALING and args[0].is_meta)):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def build_model(
    name: str,
    num_classes: int,
    kwargs: Mapping[str, Any] | None = None,
    init: str = "timm",
    zero_init_last: bool | None = None,
) -> nn.Module:
    """Build an architecture with random weights and a head of `num_classes`.

    Args:
        name: anything `canonical` understands; a tag decides how the network is fed, not its weights.
        num_classes: outputs of the head.
        kwargs: passed to timm.create_model.
        init: `timm`, `torch` (every module's own reset_parameters) or `kaiming_fan_out` (convolutions as in the
            ResNet paper, norms 1 and 0, other layers PyTorch's).
        zero_init_last: whether the last norm of each residual block starts at 0; None: as `init` has it, which is
            yes for timm's ResNets and no for the others.

    Raises:
        UserError: unknown name, or arguments the architecture does not take.
    """
    name = canonical(name)
    arguments = {**_AS_PUBLISHED.get(name.split(".")[0], {}), **(kwargs or {})}
    refused = sorted(_NOT_OF_THE_NETWORK & arguments.keys())
    if refused:
        raise UserError(f"model.kwargs: {', '.join(refused)} says how timm builds a network, not which\n  leave it out")
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, **arguments)
    except UserError:
        raise
    except Exception as error:  # networks raise whatever their arguments make them trip over
        raise UserError(f"model.kwargs {dict(kwargs or {})} do not suit '{name}': {error}") from error
    initialise(model, init)
    if zero_init_last is not None:
        _set_residual_start(model, name, zero_init_last)
    return model


def build_shape(name: str, num_classes: int, kwargs: Mapping[str, Any] | None = None) -> nn.Module:
    """Build an architecture on the meta device: names and shapes of its tensors, no values.

    Raises:
        UserError: as `build_model`.
    """
    with torch.device("meta"), RandomValuesLeftOut():
        return build_model(name, num_classes, kwargs)


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


def _set_residual_start(model: nn.Module, name: str, zero: bool) -> None:
    """Set the last norm of every residual block to 0 or 1.

    Raises:
        UserError: the architecture has no such norms.
    """
    blocks = [m for m in model.modules() if callable(getattr(m, "zero_init_last", None))]
    if not blocks:
        raise UserError(f"'{name}' has no residual blocks whose last norm can start at zero; leave zero_init_last out")
    for block in blocks:
        block.zero_init_last()  # type: ignore[operator]
        if not zero:
            for norm in block.modules():
                weight = getattr(norm, "weight", None)
                # Fresh norms are 1 unless the residual start made them 0.
                if isinstance(weight, Tensor) and weight.dim() == 1 and not weight.any():
                    nn.init.ones_(weight)


def reset_head(model: nn.Module, num_classes: int) -> None:
    """Replace the head by a freshly initialised one of `num_classes`."""
    model.reset_classifier(num_classes)  # type: ignore[operator]


def architecture(model: nn.Module) -> str:
    """Return the timm name the network was built with."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    return str(cfg.get("architecture", type(model).__name__))


def in_channels(model: nn.Module) -> int:
    """Return the number of input channels."""
    return int((getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 0, 0))[0])


def default_size(model: nn.Module) -> int:
    """Return the size in pixels timm states for the network's training."""
    return int((getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))[-1])


def _kind(tensor: Tensor) -> str:
    return "complex" if tensor.is_complex() else "fraction" if tensor.is_floating_point() else "integer"


def load_strict(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into the network: every tensor, the same names, the same shapes.

    Raises:
        UserError: lists what is missing, unexpected, of another shape, or no number; nothing has been loaded then.
    """
    require_fit(model, state, source)
    require_finite(state, source)
    model.load_state_dict(state, strict=not any(k not in state for k in model.state_dict()))


def require_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are no numbers: what is computed with them is none either.

    Raises:
        UserError: names the tensors that hold inf or nan.
    """
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        more = f" and {len(bad) - 6} more" if len(bad) > 6 else ""
        raise UserError(f"{source}: weights that are no numbers (inf or nan) in {', '.join(bad[:6])}{more}")


def require_fit(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Check that `state` holds every tensor of the network and no other; the network may be on the meta device.

    Raises:
        UserError: lists what is missing, unexpected, of another shape or of another kind of number.
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
    kinds = [
        f"{k}: {str(state[k].dtype).removeprefix('torch.')} in the file, {str(own[k].dtype).removeprefix('torch.')} in "
        "the network"
        for k in own
        if k in state and _kind(state[k]) != _kind(own[k]) and not k.endswith("num_batches_tracked")
    ]
    if missing or unexpected or shapes or kinds:
        lines = [f"{source} does not fit '{architecture(model)}'"]
        problems = {"missing": missing, "unexpected": unexpected, "another shape": shapes, "another kind": kinds}
        for what, names in problems.items():
            if names:
                more = f", and {len(names) - 6} more" if len(names) > 6 else ""
                lines.append(f"  {what} ({len(names)}): {', '.join(names[:6])}{more}")
        raise UserError("\n".join(lines))


def sync_norms(model: nn.Module) -> nn.Module:
    """Return the network with BatchNorm over all processes in training; the same tensors under the same names."""
    converted: nn.Module = convert_sync_batchnorm(model)
    return converted
