"""The training loop: run_stage and update. Training and fixing both come through here; run.py strings them together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fixres import checkpoint, models
from fixres.checkpoint import TrainState
from fixres.config import Recipe, Stage
from fixres.data.class_weights import class_weights
from fixres.data.collections import Collection
from fixres.data.loader import resolve_workers, steps_per_epoch, train_batches
from fixres.errors import UserError
from fixres.evaluate import Evaluation, Reading, evaluate
from fixres.fix import apply_plan, set_train_mode, verify_plan
from fixres.loss import training_loss
from fixres.metrics import without_confusion
from fixres.optim import OPTIMIZER_FILE, Mixer, WeightAverage, load_named_state, make_optimizer
from fixres.resolution import Plan, Preprocess
from fixres.runlog import RunLog
from fixres.runtime import Runtime
from fixres.sampling import sample_seed
from fixres.schedule import learning_rate
from fixres.transforms import normalise


class Stopwatch:
    """Seconds of work, those before an interruption included."""

    def __init__(self, earlier: float = 0.0) -> None:
        self.earlier = earlier
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self.earlier + time.perf_counter() - self.start


@dataclass(frozen=True)
class Workshop:
    """What every stage of a run shares."""

    recipe: Recipe
    recipe_text: str
    folder: Path
    collection: Collection
    runtime: Runtime
    preprocess: Preprocess
    """The test-time preprocessing; stages use it at their own size."""
    log: RunLog
    model_args: Mapping[str, Any]
    """What timm.create_model was given beside the name."""
    watch: Stopwatch

    @property
    def reading(self) -> Reading:
        """How evaluations of this run read pictures."""
        data = self.recipe.data
        workers = resolve_workers(data.workers)
        return Reading(self.recipe.evaluation.batch_size, workers, data.on_bad_image)

    def measure(self, model: nn.Module, split: str, sizes: list[int]) -> Evaluation:
        """Evaluate `model` on a split at the given sizes."""

        def report(done: int, total: int) -> None:
            self.log.progress(what=f"measuring on {split}", done=done, total=total)

        preprocesses = [self.preprocess.at(size) for size in sizes]
        return evaluate(model, self.collection.split(split), preprocesses, self.runtime, self.reading, report)


@dataclass(frozen=True)
class StageRun:
    """One stage of one run: its settings with the size decided, and what it may move."""

    index: int
    name: str
    stage: Stage
    size: int
    plan: Plan
    total_steps: int
    steps_per_epoch: int
    class_weights: tuple[float, ...] | None = None

    @property
    def warmup_steps(self) -> int:
        """Steps of the warm-up, whole epochs or not."""
        return round(self.stage.warmup_epochs * self.steps_per_epoch)


def describe_stage(recipe: Recipe, collection: Collection, model: nn.Module, index: int, size: int) -> StageRun:
    """Work out the plan and the number of steps of stage `index` at `size`.

    Raises:
        UserError: a batch larger than the training split, a size the network cannot take, or moves it cannot do.
    """
    stage = recipe.run_stages[index]
    split = collection.split("train")
    num_steps = steps_per_epoch(split, stage, index)
    name = "fix" if is_fix(recipe, index) else "train" if index == 0 else f"train{index + 1}"
    plan = models.make_plan(models.at_size(model, size), stage.moves, size)
    if plan.live_norms and stage.batch_size == 1:
        raise UserError(
            f"batch_size 1 leaves {plan.live_norms[0]} without statistics\n  give at least 2, or moves: head"
        )
    weights = class_weights(recipe.data.class_weights, split)
    return StageRun(index, name, stage, size, plan, stage.epochs * num_steps, num_steps, weights)


def is_fix(recipe: Recipe, index: int) -> bool:
    """Return whether stage `index` of those that run adapts a trained network: the `fix`, or a partial later stage."""
    stage = recipe.run_stages[index]
    return index > 0 and stage.moves != "all" if recipe.stages else stage is recipe.fix


def run_stage(shop: Workshop, run: StageRun, model: nn.Module, resume_from: dict[str, Any] | None = None) -> TrainState:
    """Train `model` through one stage and return its state, with the weights that ship in `shipped`.

    Args:
        shop: what the run shares.
        run: the stage.
        model: the network at the stage's size; changed in place.
        resume_from: content of last.pt to go on from.
    """
    before = checkpoint.copy_state(model)
    state, wrapped = begin(shop, run, model)
    watch = Stopwatch(resume_from["stage_seconds"] if resume_from else 0.0)
    if resume_from is not None:
        checkpoint.restore_state(state, resume_from)
    mixer = _mixer(shop, run)
    batches = _batches(shop, run, state.step)
    window = Window(run.stage.batch_size)
    while state.step < run.total_steps:
        images, labels = window.fetch(batches)
        lr = _learning_rate(shop.recipe, run, state.step)
        loss = update(shop, run, state, wrapped, (images, labels), lr, mixer)
        window.add(loss)
        is_epoch_end = state.step % run.steps_per_epoch == 0
        shop.log.progress(
            what=f"{run.name} at {run.size} px", done=state.step, total=run.total_steps, loss=loss, rate=window.rate()
        )
        if state.step % shop.recipe.output.log_every_steps == 0 or is_epoch_end:
            shop.log.event("train", **_where(run, state), **window.drain(), lr=lr)
        if is_epoch_end:
            finish_epoch(shop, run, state, watch)
            window.restart()
    _take_best(shop, run, state)
    shop.log.event(
        "stage_done",
        stage=run.name,
        stage_index=run.index,
        size=run.size,
        seconds=round(watch.seconds, 3),
        data_wait_ratio=window.wait_ratio(),
    )
    unmoved = verify_plan(before, state.shipped.state_dict(), run.plan)
    if unmoved:
        shop.log.event("note", text=f"{len(unmoved)} tensors the plan names did not change: {', '.join(unmoved[:5])}")
    return state


def begin(shop: Workshop, run: StageRun, model: nn.Module) -> tuple[TrainState, nn.Module]:
    """Freeze what the plan freezes and make optimizer, average and wrapper."""
    torch.manual_seed(sample_seed(shop.recipe.seed, run.index, 0, 0, 1) % 2**63)
    model = shop.runtime.place(model)
    apply_plan(model, run.plan)
    optimizer = make_optimizer(model, shop.recipe.optim, run.stage)
    if shop.recipe.optim.state and run.index == 0:
        source = Path(shop.recipe.optim.state)
        source = source / OPTIMIZER_FILE if source.is_dir() else source
        load_named_state(optimizer, model, checkpoint.read_weights(source), str(source))
    average = WeightAverage(model, shop.recipe.ema) if run.stage.ema else None
    wrapped, optimizer = shop.runtime.prepare(model, optimizer)
    state = TrainState(model, optimizer, average, scaler=shop.runtime.accelerator.scaler, stage_index=run.index)
    return state, wrapped


def update(
    shop: Workshop,
    run: StageRun,
    state: TrainState,
    wrapped: nn.Module,
    batch: tuple[Tensor, Tensor],
    lr: float,
    mixer: Mixer | None,
) -> float:
    """Do one step: forward, backward, update, average. Return the loss.

    Args:
        batch: uint8 images `[B, 3, S, S]` and int64 labels `[B]`.

    Raises:
        UserError: the loss is not finite; the weights are still those of the step before.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    set_train_mode(state.model, run.plan)
    runtime = shop.runtime
    # Unreadable pictures that are left out can make a batch odd, which timm's mixup refuses, or too small.
    count = len(batch[0]) - (len(batch[0]) % 2 if mixer is not None else 0)
    if count == 0 or (count == 1 and run.plan.live_norms):
        raise UserError(
            "a batch has fewer than two readable pictures\n  remove the unreadable ones, or raise batch_size"
        )
    images = normalise(runtime.images(batch[0][:count]), shop.preprocess.mean, shop.preprocess.std)
    targets = batch[1][:count].to(runtime.device)
    if mixer is not None:
        images, targets = mixer(images, targets, state.step)
    with runtime.autocast():
        loss = training_loss(wrapped(images), targets, run.stage.label_smoothing, run.class_weights)
    value = loss.item()
    if not torch.isfinite(loss):
        raise UserError(
            f"the loss is {value} at step {state.step} of stage {run.name} (lr {lr:.3g}); nothing was updated\n"
            f"  lower the learning rate: --{'fix' if run.name == 'fix' else 'train'}.lr {run.stage.lr / 4:.2g}"
        )
    runtime.backward(loss)
    runtime.clip(wrapped, shop.recipe.optim.clip_norm)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.step += 1
    if state.average is not None:
        state.average.update(state.model, step=state.step)
        _share_live_statistics(state, run.plan)
    return value


def _share_live_statistics(state: TrainState, plan: Plan) -> None:
    """Give the average the network's own statistics where the trunk is frozen.

    They describe the input of the last norm, which the head does not change, so those of the network are exact for
    the averaged head, while averaged ones would lag behind.
    """
    assert state.average is not None
    if plan.moves == "all":
        return
    own = dict(state.model.named_buffers())
    for name, buffer in state.average.module.named_buffers():
        if name in plan.statistics:
            buffer.copy_(own[name])


def finish_epoch(shop: Workshop, run: StageRun, state: TrainState, watch: Stopwatch) -> None:
    """Measure on the selecting split, remember the best weights and save."""
    epoch = state.step // run.steps_per_epoch
    is_last = state.step == run.total_steps
    evaluation = shop.recipe.evaluation
    if epoch % evaluation.every_epochs == 0 or is_last:
        size = run.size if evaluation.select_size == "stage" else evaluation.select_size
        found = shop.measure(state.shipped, shop.collection.select, [size])
        top1 = found.results[0]["top1"]
        if top1 > state.best_top1 or evaluation.keep == "last":
            state.best_top1, state.best_step = top1, state.step
            state.best_weights = checkpoint.copy_state(state.shipped)
        shop.log.event(
            "eval",
            **_where(run, state),
            split=shop.collection.select,
            weights=state.shipped_label,
            num_images=found.num_images,
            results=[without_confusion(r) for r in found.results],
        )
    if epoch % shop.recipe.output.save_every_epochs == 0 or is_last:
        checkpoint.save_state(
            state,
            shop.folder,
            recipe=shop.recipe_text,
            classes=shop.collection.classes,
            metrics_bytes=shop.log.size(),
            extra={"size": run.size, "stage_seconds": watch.seconds, "run_seconds": shop.watch.seconds},
        )
        shop.log.status("running")


def _take_best(shop: Workshop, run: StageRun, state: TrainState) -> None:
    state.shipped.load_state_dict(state.best_weights)
    epoch = state.best_step / run.steps_per_epoch
    why = "last" if shop.recipe.evaluation.keep == "last" else f"best top-1 on {shop.collection.select}"
    shop.log.event(
        "kept", stage=run.name, stage_index=run.index, step=state.best_step, epoch=epoch, top1=state.best_top1, why=why
    )


def _batches(shop: Workshop, run: StageRun, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the stage's batches; tell the user once how many unreadable pictures were left out."""
    bad: list[str] = []
    told = 0
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
        decode=data.decode,
        hold_gib=data.hold_gib,
        pin_memory=shop.runtime.device.type == "cuda",
        bad=bad,
    )
    for batch in loader:
        if len(bad) > told:
            shop.log.event("bad_images", num_bad_images=len(bad), paths=bad[told:])
            told = len(bad)
        yield batch.images, batch.labels


def _mixer(shop: Workshop, run: StageRun) -> Mixer | None:
    if not (run.stage.mixup or run.stage.cutmix):
        return None
    return Mixer(run.stage, len(shop.collection.classes), shop.recipe.seed, run.index)


def _learning_rate(recipe: Recipe, run: StageRun, step: int) -> float:
    return learning_rate(
        step,
        peak=run.stage.lr,
        total_steps=run.total_steps,
        warmup_steps=run.warmup_steps,
        shape=run.stage.schedule,
        min_lr=recipe.schedule.min_lr,
    )


def _where(run: StageRun, state: TrainState) -> dict[str, Any]:
    return {
        "stage": run.name,
        "stage_index": run.index,
        "step": state.step,
        "epoch": round(state.step / run.steps_per_epoch, 4),
    }


class Window:
    """Loss, speed and waiting time since the last log line, and the waiting time of the whole stage."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.is_first = True
        self.stage_seconds = self.stage_waiting = 0.0
        self.restart()

    def restart(self) -> None:
        """Forget everything, so that time spent measuring does not count as training."""
        self.losses: list[float] = []
        self.start = time.perf_counter()
        self.waiting = 0.0

    def fetch(self, batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return the next batch, timing the wait for it."""
        start = time.perf_counter()
        batch = next(batches)
        if self.is_first:
            # Starting the workers is not waiting for pictures.
            self.is_first = False
            self.restart()
        else:
            self.waiting += time.perf_counter() - start
        return batch

    def wait_ratio(self) -> float:
        """Return the share of the stage's training time, what was drained, that went to waiting for pictures."""
        return round(self.stage_waiting / max(1e-9, self.stage_seconds), 4)

    def add(self, loss: float) -> None:
        """Record the loss of one step."""
        self.losses.append(loss)

    def rate(self) -> float:
        """Return images per second since the last line."""
        return len(self.losses) * self.batch_size / max(1e-9, time.perf_counter() - self.start)

    def drain(self) -> dict[str, float]:
        """Return the fields of a train event and start again."""
        seconds = time.perf_counter() - self.start
        fields = {
            "loss": sum(self.losses) / len(self.losses),
            "images_per_second": round(self.rate(), 2),
            "seconds": round(seconds, 3),
            "data_wait_ratio": round(self.waiting / max(1e-9, seconds), 4),
        }
        self.stage_seconds += seconds
        self.stage_waiting += self.waiting
        self.restart()
        return fields
