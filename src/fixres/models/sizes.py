"""The sizes a network can take, those of them worth measuring, and the work each costs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from fixres.config.stage import Stage
from fixres.errors import UserError
from fixres.models.build import architecture, in_channels
from fixres.resolution import (
    HARDLY_LARGER,
    Preprocess,
    apparent_ratio,
    candidate_sizes,
    exact_matching_size,
    matching_size,
)

MAX_SIZE = 4096
"""Largest side in pixels; beyond it one picture's activations exceed any machine's memory."""

_REFUSALS = (RuntimeError, AssertionError, ValueError, AttributeError, IndexError, TypeError, ZeroDivisionError)
"""What networks raise at a size they cannot take."""

_STEP = 32
"""Stride of most convolutional networks, and a multiple of most patches."""

_counted: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], float]] = WeakKeyDictionary()
"""What `gmacs` counted, by network, size and the shapes of its tensors."""
_taken: WeakKeyDictionary[nn.Module, set[tuple[Any, ...]]] = WeakKeyDictionary()
"""What `at_size` has seen a network take as it is, by size and the shapes of its tensors."""
_KEEP_SHAPE = {
    nn.functional.relu,
    nn.functional.relu6,
    nn.functional.hardtanh,
    nn.functional.hardswish,
    nn.functional.silu,
    nn.functional.gelu,
}
"""Activations, which have no multiply-adds in PyTorch's count."""


def at_size(model: nn.Module, size: int) -> nn.Module:
    """Return the network ready for inputs `[B, 3, size, size]`: itself, or a resized copy for position embeddings.

    Raises:
        UserError: the architecture cannot take the size; the message lists the nearest that it can.
    """
    if not 1 <= size <= MAX_SIZE:
        raise UserError(f"size {size}: give a number of pixels from 1 to {MAX_SIZE}")
    try:
        candidate = _resized(model, size)
        key, taken = _shapes_at(candidate, size), _taken.setdefault(candidate, set())
        if key not in taken:
            probe(candidate, size)
            taken.add(key)
    except _REFUSALS as error:
        legal = legal_sizes(model, size)
        allowed = f"it takes {', '.join(map(str, legal))}" if legal else "no size near it works either"
        raise UserError(
            f"'{architecture(model)}' cannot take {size} px\n  {allowed}\n"
            f"  ({type(error).__name__}: {_first_line(error)})"
        ) from error
    return candidate


def _resized(model: nn.Module, size: int) -> nn.Module:
    """Return the network itself, or a copy with its position grid changed to `size`.

    Raises:
        ValueError: the network resizes every input to one size of its own, or would ignore a part of this one.
    """
    own = _inner_size(model)
    if own not in (None, size):
        raise ValueError(f"it resizes every picture to {own} px itself, so another size would change nothing")
    if bound_size(model) in (None, size):
        return model
    patch = patch_size(model)
    if size % patch:
        raise ValueError(f"its patches are {patch} px, so that the last {size % patch} px would be ignored")
    copied = copy.deepcopy(model)
    copied.set_input_size(img_size=size)  # type: ignore[operator]
    return copied


def _inner_size(model: nn.Module) -> int | None:
    """Return the size to which the network itself resizes any input (CrossViT), or None."""
    if hasattr(model, "img_size_scaled"):
        size: Any = getattr(model, "img_size", None)
        return int(size[0]) if isinstance(size, tuple | list) else None
    return None


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


def patch_size(model: nn.Module) -> int:
    """Return the side in pixels of the patches a network cuts its input into, 1 where it does not say."""
    size: Any = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
    return int(size[0] if isinstance(size, tuple | list) else size)


def legal_sizes(model: nn.Module, near: int) -> list[int]:
    """Return up to four sizes closest to `near`, multiples of 8 or of its patches, that the network can take."""
    patch = patch_size(model)
    step = patch if 8 % patch else 8
    candidates = sorted(range(max(1, near // 2 // step) * step, 2 * near + step + 1, step), key=lambda s: abs(s - near))
    return sorted(itertools.islice(_legal(model, candidates), 4))


def larger_size(model: nn.Module, size: int) -> int | None:
    """Return the next round size above `size`, at most twice it, that the network takes; None where there is none."""
    rounds = (range((size // step + 1) * step, 2 * size + 1, step) for step in (32, 28, 16, 8))
    return next(_legal(model, itertools.chain.from_iterable(rounds)), None)


def _legal(model: nn.Module, candidates: Iterable[int]) -> Iterator[int]:
    """Yield the candidates that the network can take."""
    shape = model if needs_values(model) else without_values(model)
    return (size for size in candidates if refusal(shape, size) is None)


class Offer(NamedTuple):
    """Sizes for a network and how it was trained."""

    sizes: tuple[int, ...]
    """Worth measuring, ascending: the train size, up to six from there to its double, and `matching`."""
    exact: float
    """Size in pixels at which objects look as large as in training."""
    matching: int
    """The size near `exact` that the network can take."""


def offer_sizes(model: nn.Module, train: Preprocess, stage: Stage) -> Offer:
    """Return the sizes worth measuring for a network trained by `stage`, at `train.size` pixels."""
    shape = model if needs_values(model) else without_values(model)

    @cache
    def is_legal(size: int) -> bool:
        return size == train.size or (size <= MAX_SIZE and refusal(shape, size) is None)

    patch = patch_size(model)
    steps = list(dict.fromkeys((_STEP if _STEP % patch == 0 else patch, 28, 16, 8)))
    sizes = {train.size}
    for place, step in enumerate(steps):
        candidates = candidate_sizes(train.size, step)
        legal = [size for size in candidates if is_legal(size)]
        # A network may take one of many by chance, which makes the step none of its own.
        is_own = len(legal) > (2 if len(candidates) > 2 else 1)
        if place == 0 or is_own:
            sizes.update(legal)
        if is_own:
            steps = steps[place:]
            break
    exact, matching = exact_matching_size(train, stage.crop, stage.crop_scale), train.size
    for step in steps:
        matching = matching_size(train, stage.crop, stage.crop_scale, step, is_legal)
        if matching != train.size or exact <= (1 + HARDLY_LARGER) * train.size:
            break
    return Offer(tuple(sorted({*sizes, matching})), exact, matching)


def offer_train_size(model: nn.Module, serve: Preprocess, stage: Stage) -> tuple[float, int]:
    """Return the train size for a network that is used at `serve.size`, and the one it takes for it.

    The exact one, in pixels, shows objects as large in training as that size in testing: the inverse of `Offer.exact`.
    What the network takes is never above `serve.size`, and that itself where nothing else is legal.
    """
    exact = serve.size * apparent_ratio(serve, stage.crop, stage.crop_scale, serve)
    shape, patch = model if needs_values(model) else without_values(model), patch_size(model)
    step = _STEP if _STEP % patch == 0 else patch
    sizes = sorted(range(step, serve.size + 1, step), key=lambda size: abs(size - exact))
    return exact, next((size for size in sizes if refusal(shape, size) is None), serve.size)


def refusal(model: nn.Module, size: int) -> str | None:
    """Return why the network cannot take `size`, in one line, or None when it can."""
    try:
        probe(_resized(model, size), size)
    except _REFUSALS as error:
        return _first_line(error) or type(error).__name__
    return None


def needs_values(model: nn.Module) -> bool:
    """Return whether only the network with its values tells which sizes it takes, quickly and rightly.

    Without values PyTorch does not notice positions beyond the end of a table (MViTv2), and runs an LSTM step by step.
    """
    return any(isinstance(module, nn.RNNBase) or hasattr(module, "rel_pos_h") for module in model.modules())


def without_values(model: nn.Module) -> nn.Module:
    """Return a copy on the meta device: it has shapes and no values, so that a forward pass costs no arithmetic.

    The values are never copied, so that the copy of the largest network is as cheap as that of a small one.
    """
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put the network in evaluation mode, and every module back in its own mode afterwards.

    Some transformers keep in evaluation what they computed from their parameters, and would go on using it after the
    parameters have changed; what they kept is dropped at both ends.
    """
    modes = {module: module.training for module in model.modules()}
    _forget_kept_biases(model)
    try:
        model.eval()
        yield
    finally:
        _forget_kept_biases(model)
        for module, mode in modes.items():
            module.training = mode


def _forget_kept_biases(model: nn.Module) -> None:
    for module in model.modules():
        if getattr(module, "attention_bias_cache", None):
            module.attention_bias_cache = {}  # type: ignore[assignment]


class _ShapesOnly(TorchFunctionMode):
    """Leaves out batch norm and activations where there are no values: they keep the shape and take most time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and (func is nn.functional.batch_norm or func in _KEEP_SHAPE) and args[0].is_meta:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


def probe(model: nn.Module, size: int) -> None:
    """Run one zero image `[1, 3, size, size]` through the network in evaluation mode and check its output's shape."""
    device = next(model.parameters()).device
    with evaluation_mode(model), torch.inference_mode(), _ShapesOnly():
        output = model(torch.zeros(1, in_channels(model), size, size, device=device))
    if not isinstance(output, Tensor) or output.dim() != 2:
        raise ValueError(f"the output is not one row of logits but {getattr(output, 'shape', type(output))}")


def gmacs(model: nn.Module, size: int) -> float:
    """Return billions of multiply-adds for one image at `size` (half of PyTorch's flop count).

    Counted once for as long as the network keeps the shapes of its tensors: an evaluation after every epoch asks again.
    """
    key, known = _shapes_at(model, size), _counted.setdefault(model, {})
    if key not in known:
        known[key] = _count_gmacs(model, size)
    return known[key]


def _shapes_at(model: nn.Module, size: int) -> tuple[Any, ...]:
    return size, *((name, tensor.shape) for name, tensor in model.state_dict().items())


def _count_gmacs(model: nn.Module, size: int) -> float:
    """Count without values, so that it costs no arithmetic and is the same on every device.

    PyTorch has no formula for the fused LSTM of the CPU, for instance.
    """
    shape = without_values(model)
    # The counter looks for the gradient of every module input that wants one, and finds none for a class token that
    # is a parameter; so nothing wants one here.
    for parameter in shape.parameters():
        parameter.requires_grad_(False)
    counter = FlopCounterMode(display=False)
    with counter:
        probe(shape, size)
    return counter.get_total_flops() / 2e9


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120]
