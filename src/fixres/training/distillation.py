"""A trained network that another one learns from (Hinton et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fixres.checkpoints.resolve import load
from fixres.checkpoints.source import weights_and_kind
from fixres.config.recipe import Stage
from fixres.data.collections import Collection
from fixres.errors import UserError
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime


class Teacher:
    """Gives the logits of a trained network for what the student sees, in the order of the student's classes."""

    def __init__(self, model: nn.Module, order: Tensor, scale: Tensor, shift: Tensor) -> None:
        self.model, self.order, self.scale, self.shift = model, order, scale, shift

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Return logits `[B, C]` for inputs `[B, 3, S, S]` that are normalised as the student's, mixed or not."""
        logits: Tensor = self.model(inputs * self.scale + self.shift)
        return logits[:, self.order]


def find_teacher(
    stage: Stage, size: int, collection: Collection, preprocess: Preprocess, runtime: Runtime
) -> Teacher | None:
    """Return the teacher a stage names, ready for inputs of `size`; None where it names none.

    Args:
        stage: its settings.
        size: side of the student's inputs in pixels.
        collection: what the student learns.
        preprocess: how the student's inputs are normalised.
        runtime: where it computes.

    Raises:
        UserError: no such network, one that cannot take the size, or one that does not know all the classes.
    """
    if not stage.teacher:
        return None
    product = load(*weights_and_kind(stage.teacher))
    missing = sorted(set(collection.classes) - set(product.classes)) if product.has_names else []
    if missing or len(product.classes) < len(collection.classes):
        what = f"'{missing[0]}'" if missing else f"{len(collection.classes)} classes"
        raise UserError(f"the teacher {stage.teacher} does not know {what} of {collection.uri}")
    named = [product.classes.index(name) for name in collection.classes] if product.has_names else None
    device = runtime.device
    order = torch.tensor(named if named is not None else range(len(collection.classes)), device=device)
    own = product.preprocess
    mean, std, own_mean, own_std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1)
        for values in (preprocess.mean, preprocess.std, own.mean, own.std)
    )
    # The student's inputs are taken back to [0, 1] and normalised as the teacher's, in one step.
    model = runtime.place(product.network_at(size).eval().requires_grad_(False))
    return Teacher(model, order, std / own_std, (mean - own_mean) / own_std)
