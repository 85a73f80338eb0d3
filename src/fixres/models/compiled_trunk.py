"""The frozen part of a network computed by OpenVINO, where it is installed: the same values in about half the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from fixres.errors import UserError
from fixres.models.backends import compile_openvino
from fixres.models.sizes import gmacs
from fixres.models.split_trunk import Crossing, Cut, is_close
from fixres.runtime.device import Runtime

PAYS_FROM = 150.0
"""GMACs in all from which the conversion, about two seconds, is won back by networks of depthwise convolutions."""


def pays(runtime: Runtime, model: nn.Module, size: int, num_images: int) -> bool:
    """Return whether OpenVINO may compute the network, and there is enough to compute for its conversion to pay.

    It may on CPUs in float32, where it is installed.
    """
    is_allowed = runtime.device.type == "cpu" and runtime.precision == "fp32" and find_spec("openvino") is not None
    return is_allowed and gmacs(model, size) * num_images >= PAYS_FROM


def with_openvino(cut: Cut, images: Tensor, threads: int) -> Cut:
    """Return a cut whose front OpenVINO computes; the cut as it is where OpenVINO cannot, or gives other values.

    Args:
        cut: of a network on the CPU, in float32.
        images: a normalised batch `[B, 3, S, S]` of real pictures, which it is checked with.
        threads: processor cores to use.
    """
    front, back = cut.front, cut.back
    if front is None or back is None:
        return cut
    try:
        run = compile_openvino(_Front(front), images[:1], threads)
    except UserError:
        return cut

    def compiled(x: Tensor) -> Crossing:
        return tuple(torch.from_numpy(array) for array in run(x))

    if not all(is_close(found, wanted) for found, wanted in zip(compiled(images), front(images), strict=True)):
        return cut
    return replace(
        cut,
        path="openvino",
        features=lambda x: back(compiled(x)),
        norm_inputs=lambda x: compiled(x)[: len(cut.norms)],
        front=compiled,
    )


class _Front(nn.Module):
    """What OpenVINO converts: a module, where a cut has a function."""

    def __init__(self, run: Callable[[Tensor], Crossing]) -> None:
        super().__init__()
        self.run = run

    def forward(self, images: Tensor) -> Crossing:
        """Return what crosses the cut."""
        return tuple(t.float() for t in self.run(images))
