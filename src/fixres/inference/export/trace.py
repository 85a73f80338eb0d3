"""A product's network as one traced program, for as many input sizes as its architecture allows."""

from __future__ import annotations

import contextlib
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fixres.checkpoints.product import Product
from fixres.errors import UserError
from fixres.inference.export.metadata import MAX_BATCH, Sizes
from fixres.models.deployable import has_dynamic_padding, with_constant_padding, with_free_positions
from fixres.models.sizes import MAX_SIZE, bound_size, larger_size, patch_size

_ANY_FROM = 64
"""Smallest side of files that take any size: below it the stages of a ResNet shrink to single pixels, which traces to
another program."""
_SECONDS = 60
"""For tracing with free sizes; a few networks would keep the symbolic arithmetic busy without end."""
_TOO_LONG = f"tracing with free sizes did not end within {_SECONDS} s"


class Deployed(nn.Module):
    """The network with what was asked to be part of the file around it."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, product: Product, softmax: bool, normalise: bool) -> None:
        super().__init__()
        self.model = model
        self.softmax = softmax
        self.normalise = normalise
        p = product.preprocess
        scale = torch.tensor([1 / (255 * s) for s in p.std]).view(1, 3, 1, 1)
        shift = torch.tensor([m / s for m, s in zip(p.mean, p.std, strict=True)]).view(1, 3, 1, 1)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits or probabilities `[B, C]` of float32 images `[B, 3, H, W]`."""
        if self.normalise:
            images = images * self.scale - self.shift
        outputs: Tensor = self.model(images)
        return outputs.softmax(1) if self.softmax else outputs


@dataclass(frozen=True)
class Captured:
    """A traced network."""

    program: ExportedProgram
    sizes: Sizes
    eager: nn.Module
    """The network as it is without tracing, for every input that `sizes` accepts."""
    reason: str
    """Why the size is fixed, empty where it is not."""


def capture(product: Product, *, softmax: bool, normalise: bool) -> Captured:
    """Trace the product: free batch, and free height and width where the network can be traced so.

    What it can is found by trying: any size, multiples of the total stride, multiples of the patches, one size.

    Raises:
        UserError: the network cannot be traced at all.
    """
    size = product.preprocess.size
    model, reason = _free_model(product)
    if model is not None:
        eager = Deployed(model, product, softmax, normalise).eval()
        traced = eager
        if has_dynamic_padding(model):
            traced = Deployed(with_constant_padding(model), product, softmax, normalise).eval()
        for sizes in _attempts(model, size):
            found = _try(traced, size, sizes, eager)
            if isinstance(found, ExportedProgram):
                return Captured(found, sizes, eager, "")
            reason = found
            if reason == _TOO_LONG:
                break
    fixed = Deployed(product.model, product, softmax, normalise).eval()
    found = _try(fixed, size, Sizes(fixed=size), fixed)
    if isinstance(found, str):
        raise UserError(f"'{product.architecture}' cannot be exported: {found}")
    return Captured(found, Sizes(fixed=size), fixed, reason)


def _free_model(product: Product) -> tuple[nn.Module | None, str]:
    """Return a form of the network that takes inputs of several sizes, or None and why there is none."""
    if bound_size(product.model) is None:
        other = larger_size(product.model, product.preprocess.size)
        if other is None:
            return None, "the architecture takes one size only"
        return product.model, ""
    free = with_free_positions(product.model, len(product.classes), product.model_args)
    return free, "" if free is not None else "its positions are made for one size"


def _attempts(model: nn.Module, size: int) -> list[Sizes]:
    """Return size rules to try, the widest first; each accepts the test size."""
    step = patch_size(model)
    # Padding that depends on the input is constant only between multiples of the total stride.
    tried = (32,) if has_dynamic_padding(model) else (step, 2 * step, 32)
    steps = [s for s in dict.fromkeys(tried) if s > 1 and size % s == 0]
    rules = [Sizes(step=s, smallest=2 * s if s < 32 else s) for s in steps]
    if not has_dynamic_padding(model) and step == 1:
        rules.insert(0, Sizes(step=1, smallest=min(_ANY_FROM, size)))
    return [rule for rule in rules if rule.accept(size, size)]


def _try(model: nn.Module, size: int, sizes: Sizes, eager: nn.Module) -> ExportedProgram | str:
    """Return the program, which answers as `eager` does at other sizes too, or in one line why there is none."""
    shapes: dict[int, Any] = {0: Dim("batch", min=1, max=MAX_BATCH)}
    example = (size, size)
    if sizes.fixed is None:
        low, high = -(-sizes.smallest // sizes.step), MAX_SIZE // sizes.step
        for place, name in ((2, "height"), (3, "width")):
            if sizes.step == 1:
                # Not a named dimension: its arithmetic would have to be proven, which fails for inequalities as plain
                # as 2 (n // 8) <= n // 4. The program is compared at odd sizes instead.
                shapes[place] = Dim.DYNAMIC(min=low, max=high)
            else:
                shapes[place] = sizes.step * Dim(f"{name}_{sizes.step}", min=low, max=high)
        # Unequal sides, so that nothing is taken to be square.
        example = (size, size + sizes.step * 2)
    try:
        with warnings.catch_warnings(), _at_most(0 if sizes.fixed else _SECONDS), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, (torch.rand(2, 3, *example),), dynamic_shapes=(shapes,))
            return program if sizes.fixed else _checked_at_other_sizes(program, eager, size, sizes.step)
    except _TooLongError:
        return _TOO_LONG
    except Exception as error:  # noqa: BLE001 - tracing fails in as many ways as networks are written
        return _reason(error)


def _checked_at_other_sizes(program: ExportedProgram, model: nn.Module, size: int, step: int) -> ExportedProgram | str:
    traced = program.module()
    more = ((1, 37), (19, 6)) if step == 1 else ((1, 3), (3, 0))
    for sides in [(size + high * step, size + wide * step) for high, wide in more]:
        images = torch.rand(1, 3, *sides)
        wanted = model(images)
        if not torch.allclose(traced(images), wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0):
            return f"traced with free sizes it gives other answers at {sides[0]} x {sides[1]}"
    return program


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160] if lines else ''}"


class _TooLongError(BaseException):
    """Passes through the tracer, which turns ordinary exceptions into its own."""


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """Raise `_TooLongError` after so many seconds; 0, or outside the main thread, which gets no signals: no limit."""
    if not seconds or threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_: object) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
