"""The training loop: run_stage and update. Training and fixing both come through here; run.py strings them together."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fixres.checkpoints.convert import OPTIMIZER_FILE
from fixres.data.loader import resolve_workers, train_batches
from fixres.data.sampling import sample_seed
from fixres.data.transforms import normalise
from fixres.errors import Stopped, UserError
from fixres.evaluation.evaluate import Evaluation
from fixres.evaluation.metrics import without_confusion
from fixres.io.tensors import copy_state, read_weights
from fixres.models.build import sync_norms
from fixres.models.moves import Plan
from fixres.training.checkpointing import Keeper
from fixres.training.context import Stopwatch, Workshop
from fixres.training.distillation import find_teacher, placed
from fixres.training.freeze import apply_plan, set_train_mode, verify_plan
from fixres.training.image_logging import show_batch, show_confused
from fixres.training.losses import distillation_loss, training_loss
from fixres.training.micro_batch import chunk_count, fewest_pictures, fit_micro_batch
from fixres.training.optim import Mixer, WeightAverage, load_named_state, make_optimizer, set_learning_rate
from fixres.training.stage_plan import StageRun
from fixres.training.state import TrainState
from fixres.training.throughput_meter import Window


def run_stage(shop: Workshop, run: StageRun, model: nn.Module, resume_from: dict[str, Any] | None = None) -> TrainState:
    """Train `model` through one stage and return its state, with the weights that ship in `shipped`.

    Args:
        shop: what the run shares.
        run: the stage.
        model: the network at the stage's size; changed in place.
        resume_from: content of last.pt to go on from.

    Raises:
        Stopped: a signal came; the state is saved.
        UserError: the loss is not finite, or pictures cannot be read.
    """
    before = copy_state(model)
    state, wrapped = begin(shop, run, model)
    window = Window()
    keeper = Keeper(shop, run, state, window, Stopwatch(resume_from["stage_seconds"] if resume_from else 0.0))
    if resume_from is not None:
        keeper.restore(resume_from)
    if not state.micro_batch:
        state.micro_batch = fit_micro_batch(shop, run, state)
    try:
        if not keeper.is_measured:
            finish_epoch(shop, run, state, keeper)
        _run_steps(shop, run, state, wrapped, keeper)
    except Stopped:
        keeper.save()
        raise
    _take_best(shop, run, state)
    shop.runtime.average_statistics(state.model)
    shop.log.event(
        "stage_done",
        stage=run.name,
        stage_index=run.index,
        size=run.size,
        seconds=round(keeper.watch.seconds, 3),
        data_wait_ratio=window.wait_ratio(),
    )
    unmoved = verify_plan(before, state.shipped.state_dict(), run.plan)
    if unmoved:
        shop.log.event("note", text=f"{len(unmoved)} tensors the plan names did not change: {', '.join(unmoved[:5])}")
    return state


def begin(shop: Workshop, run: StageRun, model: nn.Module) -> tuple[TrainState, nn.Module]:
    """Freeze what the plan freezes and make optimizer, average and wrapper."""
    runtime = shop.runtime
    runtime.keep_memory()
    # Dropout differs between processes; the first has the numbers of a lone one.
    rank = runtime.processes.shard.rank
    torch.manual_seed(sample_seed(shop.recipe.seed, run.index, rank, 0, 1) % 2**63)
    if runtime.sync_bn:
        model = sync_norms(model)
    model = runtime.place(model)
    apply_plan(model, run.plan)
    optimizer = make_optimizer(model, shop.recipe.optim, run.stage)
    if shop.recipe.optim.state and run.index == 0:
        source = Path(shop.recipe.optim.state)
        source = source / OPTIMIZER_FILE if source.is_dir() else source
        load_named_state(optimizer, model, read_weights(source), str(source))
    average = WeightAverage(model, shop.recipe.ema) if run.stage.ema else None
    wrapped, optimizer = runtime.prepare(model, optimizer)
    state = TrainState(model, optimizer, average, scaler=runtime.accelerator.scaler, stage_index=run.index)
    state.teacher = placed(find_teacher(run.stage, run.size, shop.collection, shop.preprocess), runtime)
    return state, wrapped


def _run_steps(shop: Workshop, run: StageRun, state: TrainState, wrapped: nn.Module, keeper: Keeper) -> None:
    window = keeper.window
    mixer = _mixer(shop, run)
    with closing(_batches(shop, run, state.step, keeper.bad)) as batches:
        while not run.is_over(state.step, state.best_step, shop.recipe.evaluation.every_epochs):
            place = run.timeline.at(state.step)
            batch = _meet(shop, run, state, keeper, batches)
            lr = run.curve.at(state.step)
            loss = update(shop, run, state, wrapped, batch, lr, mixer)
            if batch is not None:
                window.add(loss, place.batch_size)
            is_epoch_end = run.timeline.is_epoch_end(state.step)
            what = f"{run.name} at {place.size} px"
            shop.log.progress(what=what, done=state.step, total=run.total_steps, loss=loss, rate=window.rate())
            if state.step % shop.recipe.output.log_every_steps == 0 or is_epoch_end:
                shop.log.event("train", **_where(run, state), **window.drain(), lr=lr)
            if is_epoch_end:
                shop.log.event("epoch", **_where(run, state), **window.epoch())
                finish_epoch(shop, run, state, keeper)
                window.restart()
                window.begin_epoch()


def _meet(
    shop: Workshop, run: StageRun, state: TrainState, keeper: Keeper, batches: Iterator[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor] | None:
    """Fetch a batch and agree with the other processes on what to do with it: train, pass it over, save, or stop.

    Returns:
        The batch, or None when that of some process has too few readable pictures.
    """
    batch, failure = None, None
    try:
        batch = keeper.window.fetch(batches)
    except UserError as error:
        failure = error
    is_short = batch is not None and len(batch[0]) < fewest_pictures(run)
    processes = shop.runtime.processes
    processes.note_step(state.step)
    is_stopped, has_failed, is_passed_over, is_due, has_bad = processes.largest(
        bool(shop.runtime.stop.received),
        failure is not None,
        is_short,
        processes.is_main and keeper.is_due(),
        len(keeper.bad) > keeper.told,
    )
    if has_bad:
        keeper.tell_bad()
    if has_failed:
        raise next(error for error in processes.gather(failure) if error is not None)
    if is_stopped:
        raise Stopped
    if is_due:
        keeper.save()
    return None if is_passed_over else batch


def update(
    shop: Workshop,
    run: StageRun,
    state: TrainState,
    wrapped: nn.Module,
    batch: tuple[Tensor, Tensor] | None,
    lr: float,
    mixer: Mixer | None,
) -> float:
    """Do one step: forward, backward, update, average. Return the loss of the batch, of all processes.

    Args:
        batch: this process's part: uint8 images `[B, 3, S, S]` and int64 labels `[B]`; None counts the step only.

    Raises:
        UserError: the loss is not finite; the weights are still those of the step before.
    """
    if batch is None:
        state.step += 1
        return 0.0
    set_learning_rate(state.optimizer, lr)
    set_train_mode(state.model, run.plan)
    runtime = shop.runtime
    num_chunks = chunk_count(
        len(batch[0]), run.share(runtime, state.step), state.micro_batch, fewest_pictures(run), mixer is not None
    )
    losses = []
    for number in range(num_chunks):
        with runtime.accumulating(wrapped, is_last=number == num_chunks - 1):
            loss = _chunk_loss(shop, run, state, wrapped, batch, (number, num_chunks), mixer)
            runtime.backward(loss)
        losses.append(loss.detach())
    value = runtime.processes.mean(torch.stack(losses).sum().item())
    if value - value != 0:
        raise UserError(
            f"the loss is {value} at step {state.step} of stage {run.name} (lr {lr:.3g}); nothing was updated\n"
            f"  start again in another folder with a lower learning rate: --{_slower(run)} --out DIR"
        )
    runtime.clip(wrapped, shop.recipe.optim.clip_norm)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.step += 1
    if state.average is not None:
        state.average.update(state.model, step=state.step)
        _share_live_statistics(state, run.plan)
    return value


def _slower(run: StageRun) -> str:
    """Return the setting of a quarter of the stage's learning rate, in the key it came from."""
    stage = run.stage
    given, value = ("lr", stage.lr) if stage.lr_rule == "none" else ("base_lr", stage.base_lr)
    return f"{run.key}.{given} {value / 4:.2g}"


def _chunk_loss(
    shop: Workshop,
    run: StageRun,
    state: TrainState,
    wrapped: nn.Module,
    batch: tuple[Tensor, Tensor],
    chunk: tuple[int, int],
    mixer: Mixer | None,
) -> Tensor:
    """Return a micro-batch's part of the loss: its sum over pictures divided by those of the process's whole share.

    Micro-batch j of M on process r of W holds the same pictures as process j W + r of M W would: every M-th of the
    process's part. A picture that was left out adds nothing.
    """
    number, num_chunks = chunk
    runtime = shop.runtime
    own = slice(number, None, num_chunks)
    images, labels = batch[0][own], batch[1][own]
    if mixer is not None and len(images) % 2:
        # Unreadable pictures that are left out can make a batch odd, which timm's mixup refuses.
        images, labels = images[:-1], labels[:-1]
    inputs = normalise(runtime.images(images), shop.preprocess.mean, shop.preprocess.std)
    targets = labels.to(runtime.device)
    if mixer is not None:
        shard = runtime.processes.shard
        inputs, targets = mixer(inputs, targets, state.step, number * shard.world + shard.rank)
    if state.step == 0 and number == 0:
        show_batch(shop.log, run.name, inputs, shop.preprocess, shop.log.total_step(run.index, 0))
    stage = run.stage
    with runtime.autocast():
        logits = wrapped(inputs)
        loss = training_loss(
            logits,
            targets,
            stage.label_smoothing,
            run.class_weights,
            name=stage.loss,
            gamma=stage.loss_gamma,
            threshold=stage.loss_threshold,
        )
        if state.teacher is not None:
            taught = distillation_loss(logits, state.teacher(inputs), stage.distill_temperature)
            loss = (1 - stage.distill_alpha) * loss + stage.distill_alpha * taught
    return loss * (len(images) / run.share(runtime, state.step))


def _share_live_statistics(state: TrainState, plan: Plan) -> None:
    """Give the average the network's own statistics where the trunk is frozen.

    They describe the input of the last norm, which the head does not change, so those of the network are exact for
    the averaged head, while averaged ones would lag behind.
    """
    assert state.average is not None
    if not plan.is_trunk_frozen:
        return
    own = dict(state.model.named_buffers())
    for name, buffer in state.average.module.named_buffers():
        if name in plan.statistics:
            buffer.copy_(own[name])


def finish_epoch(shop: Workshop, run: StageRun, state: TrainState, keeper: Keeper) -> None:
    """Measure on the selecting split, remember the best weights and save.

    Raises:
        Stopped: a signal came while measuring; nothing of the measurement is kept.
    """
    keeper.is_measured = False
    evaluation = shop.recipe.evaluation
    epoch = round(run.timeline.epochs_done(state.step))
    is_last = state.step == run.total_steps
    if epoch % evaluation.every_epochs == 0 or is_last:
        size = run.size if evaluation.select_size == "stage" else evaluation.select_size
        with shop.runtime.averaged(state.shipped, state.model):
            raw = None if state.average is None else shop.measure(state.model, shop.collection.select, [size])
            found = shop.measure(state.shipped, shop.collection.select, [size])
            top1 = found.results[0]["top1"]
            if top1 > state.best_top1 or evaluation.keep == "last":
                state.best_top1, state.best_step = top1, state.step
                state.best_weights = copy_state(state.shipped)
        shop.log.event(
            "eval",
            **_where(run, state),
            split=shop.collection.select,
            weights=state.shipped_label,
            num_images=found.num_images,
            results=[without_confusion(r) for r in found.results],
            **({} if raw is None else {"raw_results": [without_confusion(r) for r in raw.results]}),
        )
        if shop.runtime.processes.is_main and run.is_over(state.step, state.best_step, evaluation.every_epochs):
            _show_confused(shop, run, state, found, size)
    keeper.is_measured = True
    is_last = run.is_over(state.step, state.best_step, evaluation.every_epochs)
    if epoch % shop.recipe.output.save_every_epochs == 0 or is_last:
        keeper.save()
        shop.log.status("running")


def _show_confused(shop: Workshop, run: StageRun, state: TrainState, found: Evaluation, size: int) -> None:
    step = shop.log.total_step(run.index, state.step)
    split = shop.collection.split(shop.collection.select)
    show_confused(shop.log, run.name, split, found, shop.preprocess.at(size), step)


def _take_best(shop: Workshop, run: StageRun, state: TrainState) -> None:
    state.shipped.load_state_dict(state.best_weights)
    epoch = run.timeline.epochs_done(state.best_step)
    why = "last" if shop.recipe.evaluation.keep == "last" else f"best top-1 on {shop.collection.select}"
    if state.step < run.total_steps:
        why += f"; no better for {run.stage.patience} evaluations, so the stage ended after {state.step} steps"
    shop.log.event(
        "kept", stage=run.name, stage_index=run.index, step=state.best_step, epoch=epoch, top1=state.best_top1, why=why
    )


def _batches(shop: Workshop, run: StageRun, first_step: int, bad: list[str]) -> Generator[tuple[Tensor, Tensor]]:
    """Yield this process's part of the stage's batches; unreadable pictures that are left out are added to `bad`."""
    data = shop.recipe.data
    loader = train_batches(
        shop.collection.split("train"),
        run.stage,
        shop.preprocess.at(run.size),
        seed=shop.recipe.seed,
        stage_index=run.index,
        workers=resolve_workers(data.workers),
        first_step=first_step,
        on_bad_image=data.on_bad_image,
        max_bad_images=data.max_bad_images,
        decode=data.decode,
        hold_gib=data.hold_gib,
        pin_memory=shop.runtime.device.type == "cuda",
        bad=bad,
        shard=shop.runtime.processes.shard,
    )
    with closing(loader):
        for batch in loader:
            yield batch.images, batch.labels


def _mixer(shop: Workshop, run: StageRun) -> Mixer | None:
    if not (run.stage.mixup or run.stage.cutmix):
        return None
    return Mixer(run.stage, len(shop.collection.classes), shop.recipe.seed, run.index)


def _where(run: StageRun, state: TrainState) -> dict[str, Any]:
    return {
        "stage": run.name,
        "stage_index": run.index,
        "step": state.step,
        "epoch": round(run.timeline.epochs_done(state.step), 4),
    }
