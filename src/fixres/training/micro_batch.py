"""Pictures per forward pass: as many as the memory of the device holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from fixres.errors import UserError
from fixres.runtime.device import set_buffers
from fixres.training.context import RunContext
from fixres.training.freeze import set_train_mode
from fixres.training.stage_plan import StagePlan
from fixres.training.state import TrainState


def chunk_count(num_images: int, share: int, micro_batch: int, fewest: int, is_even: bool = False) -> int:
    """Return into how many micro-batches `num_images` pictures of a process's `share` are divided.

    With `is_even` each of them has an even number of pictures, as mixup needs; `share` is even then. Fewer than planned
    only where left-out pictures would make one of less than `fewest`.
    """
    count = -(-share // micro_batch)
    while is_even and share % (2 * count) and count < share // 2:
        count += 1
    return max(1, min(count, num_images // fewest))


def fit_micro_batch(context: RunContext, plan: StagePlan, state: TrainState) -> int:
    """Return the recipe's pictures per forward pass of a process, or as many as fit where it says auto.

    On an accelerator a forward and a backward pass of zeros are tried; the network, its statistics and the random
    numbers are afterwards as they were. A CPU has no memory of its own to run out of.

    Raises:
        UserError: not even the fewest pictures fit.
    """
    runtime = context.runtime
    share, size = plan.largest_share(runtime)
    fewest = plan.fewest_images
    if runtime.micro_batch != "auto":
        if runtime.micro_batch < fewest:
            raise UserError(
                f"runtime.micro_batch {runtime.micro_batch} leaves norms or mixup without a second picture\n"
                f"  use at least {fewest}"
            )
        return min(share, runtime.micro_batch)
    if runtime.device.type == "cpu":
        return share

    attempt = partial(_try_step, context, plan, state, size)
    found = largest_that_fits(share, fewest, attempt, lambda fits: not runtime.processes.largest(not fits)[0])
    if found < share:
        text = f"a batch of {share} pictures does not fit into the memory of {runtime.device.type}: "
        text += f"gradients are accumulated over {found} at a time, for the same step"
        context.log.event("note", text=text)
    return found


def largest_that_fits(
    share: int, fewest: int, attempt: Callable[[int], None], everywhere: Callable[[bool], bool]
) -> int:
    """Return the largest of share, share / 2, share / 4 ... for which `attempt` does not run out of memory.

    Args:
        share: pictures of a process.
        fewest: pictures that make sense.
        attempt: tries a number of pictures.
        everywhere: given whether it fits here, returns whether it fits on every process.

    Raises:
        UserError: none fits.
    """
    count = share
    while True:
        try:
            attempt(count)
            fits = True
        except torch.OutOfMemoryError:
            fits = False
        if everywhere(fits):
            return count
        if count <= fewest:
            raise UserError(
                f"not even {count} pictures fit into the memory of the device\n"
                "  use a smaller size or network, or runtime.precision bf16"
            )
        count = max(fewest, -(-count // 2))


def _try_step(context: RunContext, plan: StagePlan, state: TrainState, size: int, count: int) -> None:
    runtime, model = context.runtime, state.model
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    random_state = runtime.random_state()
    try:
        set_train_mode(model, plan.move_plan)
        images = torch.zeros(count, 3, size, size, dtype=torch.uint8)
        with runtime.autocast():
            loss = model(runtime.images(images).float()).float().sum()
        loss.backward()
        # What the optimizer will keep of every weight it moves is not allocated before its first step.
        room = [torch.empty_like(p) for p in model.parameters() if p.grad is not None for _ in range(2)]
        del room, loss
    finally:
        model.zero_grad(set_to_none=True)
        set_buffers(model, buffers)
        runtime.set_random_state(random_state)
        torch.get_device_module(runtime.device).empty_cache()
