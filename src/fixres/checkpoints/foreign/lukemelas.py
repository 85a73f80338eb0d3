"""EfficientNets under the names of efficientnet_pytorch (lukemelas), translated tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fixres.errors import UserError

# One EfficientNet block: the names of the lukemelas implementation beside timm's two block types.
_SEPARABLE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def efficientnet_names(model: nn.Module) -> dict[str, str]:
    """Return {lukemelas name: timm name} for every tensor of a timm EfficientNet, in the network's order."""
    names = {}
    prefixes = {ours: theirs for theirs, ours in _OUTSIDE.items()}
    flat_index = 0
    for stage_index, stage in enumerate(model.blocks):  # type: ignore[arg-type]
        for block_index, block in enumerate(stage):
            table = _INVERTED if hasattr(block, "conv_pwl") else _SEPARABLE
            for theirs, ours in table.items():
                prefixes[f"blocks.{stage_index}.{block_index}.{ours}"] = f"_blocks.{flat_index}.{theirs}"
            flat_index += 1
    for name in model.state_dict():
        prefix, _, leaf = name.rpartition(".")
        if prefix not in prefixes:
            raise UserError(f"no lukemelas name is known for '{name}'")
        names[f"{prefixes[prefix]}.{leaf}"] = name
    return names


def from_lukemelas(
    state: Mapping[str, Tensor], model: nn.Module, source: str, *, head: bool = True, ordered: bool = True
) -> dict[str, Tensor]:
    """Return `state` under timm's names, in the network's order.

    The map is made from the structure of the blocks and then checked against the order of the tensors in the file,
    which the two implementations share: a wrong entry between tensors of equal shape is found that way. The counters
    of BatchNorm may be absent, as in files of before PyTorch 0.4.1.

    Args:
        state: the file's tensors.
        model: a timm EfficientNet; its weights are not changed.
        source: what to call the file in a message.
        head: whether the classifier must be there and fit; otherwise it may be absent or for other classes.
        ordered: whether the order of the tensors is that of the network that was saved; safetensors keeps none.

    Raises:
        UserError: a tensor is missing, unknown, of another shape, or the names and the order disagree.
    """
    names = efficientnet_names(model)
    own = model.state_dict()
    may_differ = () if head else tuple(name for name in names if name.startswith("_fc."))
    unknown = [name for name in state if name not in names]
    missing = [n for n in names if n not in state and n not in may_differ and not n.endswith(".num_batches_tracked")]
    if unknown or missing:
        raise UserError(
            f"{source} is not this EfficientNet\n  unknown: {', '.join(unknown[:6]) or 'none'}\n"
            f"  missing: {', '.join(missing[:6]) or 'none'}"
        )
    places = [theirs for theirs in names if theirs in state]
    if ordered and list(state) != sorted(state):
        for theirs, place in zip(state, places, strict=True):
            if theirs != place:
                raise UserError(
                    f"{source}: by its name a tensor is '{names[theirs]}', by its place in the file '{names[place]}'"
                )
    for theirs in places:
        given, wanted = state[theirs].shape, own[names[theirs]].shape
        if given != wanted and theirs not in may_differ:
            raise UserError(f"{source}: '{names[theirs]}' is {list(given)}, the network's {list(wanted)}")
    return {names[theirs]: state[theirs] for theirs in places}
