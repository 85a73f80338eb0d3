"""How fast this machine trains a network, from a few steps on made-up pictures."""

from __future__ import annotations

import time

import torch
from torch import nn

from fixres.config.recipe import Recipe, Stage
from fixres.models.build import build_model, in_channels
from fixres.models.moves import make_plan
from fixres.models.sizes import at_size
from fixres.runtime.device import Runtime
from fixres.training.freeze import apply_plan, set_train_mode
from fixres.training.optim import make_optimizer

MEASURED_STEPS = 20


def measured_rate(recipe: Recipe, stage: Stage, size: int, num_classes: int, batch: int, num_steps: int = 0) -> float:
    """Return pictures a second of some steps of a stage on this machine's device, the median; reading is not in it.

    Args:
        recipe: names the network; its weights do not matter and are random.
        stage: one that trains, or that the cached solver solves.
        size: side in pixels.
        num_classes: outputs of the head.
        batch: pictures of a step.
        num_steps: a quarter of them, at the beginning, does not count; 0: `MEASURED_STEPS`.
    """
    num_steps = num_steps or MEASURED_STEPS
    runtime = Runtime(recipe.runtime.model_copy(update={"device": _device(recipe)}))
    model = build_model(recipe.model.name, num_classes, recipe.model.kwargs)
    model = runtime.place(at_size(model, size))
    plan = make_plan(model, stage.moves, size, stage.freeze, stage.norm_statistics)
    apply_plan(model, plan)
    is_solved = stage.solver in ("cached", "auto")
    images = runtime.images(torch.randn(batch, in_channels(model), size, size))
    labels = torch.zeros(batch, dtype=torch.int64, device=runtime.device)
    wrapped, optimizer = model, None
    if not is_solved:
        wrapped, optimizer = runtime.prepare(model, make_optimizer(model, recipe.optim, stage))
    set_train_mode(model, plan)
    seconds = []
    for _ in range(num_steps):
        start = time.perf_counter()
        with runtime.autocast(), torch.set_grad_enabled(not is_solved):
            loss = nn.functional.cross_entropy(wrapped(images), labels)
        if optimizer is not None:
            runtime.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        loss.item()
        seconds.append(time.perf_counter() - start)
    middle = sorted(seconds[max(1, num_steps // 4) :])
    return batch / middle[len(middle) // 2]


def _device(recipe: Recipe) -> str:
    """Return the recipe's device, or any there is where it names one that this machine lacks."""
    wanted = recipe.runtime.device
    return "auto" if wanted == "npu" and not hasattr(torch, "npu") else wanted
