"""The training loop. Training and fixing by SGD are both a StageTrainer; run.py strings stages together."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fixres.checkpoints.convert import OPTIMIZER_FILE
from fixres.data.loader import Draw, ReadPolicy, train_batches
from fixres.data.read_in_processes import ReadingStuckError
from fixres.data.sampling import sample_seed
from fixres.data.transforms import normalise
from fixres.errors import Stopped, UserError, counted
from fixres.evaluation.metrics import without_confusion
from fixres.evaluation.selection import epoch_figures
from fixres.io.tensors import copy_state, read_weights
from fixres.models.anatomy import head_names, is_inside
from fixres.models.build import sync_norms
from fixres.runtime.cpus import resolve_workers
from fixres.training.bad_image_log import BadImageLog
from fixres.training.context import RunContext, Stopwatch
from fixres.training.distillation import find_teacher
from fixres.training.freeze import apply_plan, set_train_mode, verify_plan
from fixres.training.image_logging import show_batch, show_confused
from fixres.training.losses import distillation_loss, training_loss
from fixres.training.micro_batch import chunk_count, fit_micro_batch
from fixres.training.optim import Mixer, WeightAverage, load_named_state, make_optimizer, set_learning_rate
from fixres.training.stage_plan import StagePlan, average_warning
from fixres.training.state import TrainState, restore_stage, save_stage
from fixres.training.throughput_meter import ThroughputMeter

Batch = tuple[Tensor, Tensor]
"""One process's part of a batch: uint8 images `[B, 3, S, S]` and int64 labels `[B]`."""


class StageTrainer:
    """One stage of a run by SGD: it owns network, optimizer, average, step and best weights.

    The life of the weights: `state.model` holds the **raw** ones, which every step moves. Where the stage keeps an
    average, `state.average` holds the **EMA**, which follows them. Of the two, those that would **ship** are
    `state.shipped`: the average where there is one. After each measurement, the shipped weights that were **best** on
    the selecting split, by the rule of `evaluation.selection`, are copied to `state.best_weights`, and at the end of
    the stage they are put back into `state.shipped`. The next stage starts from them, or from the raw ones where its
    `start_from` says so. **Before the fix** are the weights the last fix found: run.py copies them, and the product
    keeps the tensors that it changed.
    """

    def __init__(self, context: RunContext, plan: StagePlan, model: nn.Module) -> None:
        """Freeze what the plan freezes and make optimizer, average and wrapper; `model` is changed in place."""
        self.context, self.plan = context, plan
        self._before = copy_state(model)
        self.meter = ThroughputMeter()
        self.watch = Stopwatch()
        self.bad_images = BadImageLog(context)
        self.is_measured = plan.stage.head != "solved"
        """False between the last step of an epoch and the end of its measurement, and before a solved head's first."""
        self.is_out_of_time = False
        self.saved_step, self.saved_at = 0, time.monotonic()
        runtime, stage = context.runtime, plan.stage
        runtime.keep_memory()
        # Dropout differs between processes; the first has the numbers of a lone one.
        rank = runtime.processes.shard.rank
        torch.manual_seed(sample_seed(context.recipe.seed, plan.index, rank, 0, 1) % 2**63)
        if runtime.sync_bn:
            model = sync_norms(model)
        model = runtime.place(model)
        apply_plan(model, plan.move_plan)
        optimizer = make_optimizer(model, context.recipe.optim, stage)
        if context.recipe.optim.state and plan.index == 0:
            source = Path(context.recipe.optim.state)
            source = source / OPTIMIZER_FILE if source.is_dir() else source
            load_named_state(optimizer, model, read_weights(source), str(source))
        average = WeightAverage(model, context.recipe.ema) if stage.ema else None
        self.wrapped, optimizer = runtime.prepare(model, optimizer)
        self.state = TrainState(model, optimizer, average, scaler=runtime.accelerator.scaler, stage_index=plan.index)
        self.state.teacher = find_teacher(stage, plan.size, context.collection, context.preprocess, runtime)
        is_mixed = bool(stage.mixup or stage.cutmix)
        classes = len(context.collection.classes)
        self.mixer = Mixer(stage, classes, context.recipe.seed, plan.index) if is_mixed else None

    def fit(self, resume_from: dict[str, Any] | None = None) -> TrainState:
        """Train to the end of the stage and return its state, with the weights that ship in `shipped`.

        Args:
            resume_from: content of last.pt to go on from.

        Raises:
            Stopped: a signal came; the state is saved.
            UserError: the loss is not finite, or images cannot be read.
        """
        context, plan, state = self.context, self.plan, self.state
        if resume_from is not None:
            self.restore(resume_from)
        if not state.micro_batch:
            state.micro_batch = fit_micro_batch(context, plan, state)
        try:
            if not self.is_measured:
                self.evaluate()
            self._run_steps()
        except (Stopped, ReadingStuckError):
            # The state is that of the step before: nothing is lost by pictures that do not come.
            self.save()
            raise
        if context.measures:
            self._take_best()
        context.runtime.average_statistics(state.model)
        context.log.event(
            "stage_done",
            stage=plan.name,
            stage_index=plan.index,
            size=plan.size,
            seconds=round(self.watch.seconds, 3),
            data_wait_ratio=self.meter.wait_ratio(),
        )
        unmoved = verify_plan(self._before, state.shipped.state_dict(), plan.move_plan)
        if unmoved and state.best_step:
            text = f"{counted(len(unmoved), 'tensor')} this stage trains came out as before: {', '.join(unmoved[:5])}"
            context.log.event("note", text=text)
        return state

    def _run_steps(self) -> None:
        plan, state, meter, log = self.plan, self.state, self.meter, self.context.log
        with closing(self._batches()) as batches:
            while not self._is_over():
                place = plan.timeline.at(state.step)
                batch = self._next_batch(batches)
                lr = plan.curve.at(state.step)
                loss = self.step(batch, lr)
                if batch is not None:
                    meter.add(loss, place.batch_size)
                self._mind_the_time()
                is_end = plan.timeline.is_epoch_end(state.step) or state.step == self.plan.last_step
                what = f"{plan.name} at {place.size} px"
                log.progress(what=what, done=state.step, total=plan.last_step, loss=loss, rate=meter.rate())
                if state.step % self.context.recipe.output.log_every_steps == 0 or is_end:
                    log.event("train", **self._where(), **meter.drain(), lr=lr)
                if is_end:
                    log.event("epoch", **self._where(), **meter.epoch())
                    self.evaluate()
                    meter.restart()
                    meter.begin_epoch()

    def _mind_the_time(self) -> None:
        """End the stage here if its time is up: from now on its plan is that of a recipe with this `stop_step`."""
        deadline, processes = self.context.deadline, self.context.runtime.processes
        if deadline is None or not processes.largest(time.monotonic() >= deadline)[0]:
            return
        if self.state.step < self.plan.last_step:
            self.plan, self.is_out_of_time = self.plan.stopped_at(self.state.step), True
            self.context.log.event("out_of_time", key=self.plan.key, **self._where())

    def _next_batch(self, batches: Iterator[Batch]) -> Batch | None:
        """Fetch a batch and agree with the other processes on what to do: train, pass it over, save, or stop.

        Returns:
            The batch, or None when that of some process has too few readable images.
        """
        batch, failure = None, None
        try:
            batch = self.meter.fetch(batches)
        except Stopped:
            # It came while waiting for a batch; all processes hear of it below.
            pass
        except UserError as error:
            failure = error
        is_short = batch is not None and len(batch[0]) < self.plan.fewest_images
        processes = self.context.runtime.processes
        processes.note_step(self.state.step)
        is_stopped, has_failed, is_passed_over, is_due, has_bad = processes.largest(
            bool(self.context.runtime.stop.received),
            failure is not None,
            is_short,
            processes.is_main and self._is_due(),
            self.bad_images.has_news,
        )
        if has_bad:
            self.bad_images.tell()
        if has_failed:
            raise next(error for error in processes.gather(failure) if error is not None)
        if is_stopped:
            raise Stopped
        if is_due:
            self.save()
        return None if is_passed_over else batch

    def step(self, batch: Batch | None, lr: float) -> float:
        """Do one step: forward, backward, update, average. Return the loss of the batch, of all processes.

        Args:
            batch: this process's part; None counts the step only.
            lr: learning rate.

        Raises:
            UserError: the loss is not finite; the weights are still those of the step before.
        """
        plan, state, runtime = self.plan, self.state, self.context.runtime
        if batch is None:
            state.step += 1
            return 0.0
        set_learning_rate(state.optimizer, lr)
        set_train_mode(state.model, plan.move_plan)
        share = plan.share(runtime, state.step)
        is_even = self.mixer is not None
        num_chunks = chunk_count(len(batch[0]), share, state.micro_batch, plan.fewest_images, is_even)
        losses = []
        for number in range(num_chunks):
            with runtime.accumulating(self.wrapped, is_last=number == num_chunks - 1):
                loss = self._chunk_loss(batch, number, num_chunks)
                runtime.backward(loss)
            losses.append(loss.detach())
        value = runtime.processes.mean(torch.stack(losses).sum().item())
        if value - value != 0:
            raise UserError(
                f"the loss is {value} at step {state.step} of stage {plan.name} (lr {lr:.3g}); nothing was updated\n"
                f"  start again in another folder with a lower learning rate: --{plan.slower()} --out DIR"
            )
        runtime.clip(self.wrapped, self.context.recipe.optim.clip_norm)
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.step += 1
        if state.average is not None:
            state.average.update(state.model, step=state.step)
            self._share_live_statistics()
        return value

    def _chunk_loss(self, batch: Batch, number: int, num_chunks: int) -> Tensor:
        """Return a micro-batch's part of the loss: its sum over images divided by those of the process's whole share.

        Micro-batch j of M on process r of W holds the same images as process j W + r of M W would: every M-th of the
        process's part. An image that was left out adds nothing.
        """
        context, plan, state, runtime = self.context, self.plan, self.state, self.context.runtime
        own = slice(number, None, num_chunks)
        images, labels = batch[0][own], batch[1][own]
        if self.mixer is not None and len(images) % 2:
            # Unreadable images that are left out can make a batch odd, which timm's mixup refuses.
            images, labels = images[:-1], labels[:-1]
        inputs = normalise(runtime.images(images), context.preprocess.mean, context.preprocess.std)
        targets = labels.to(runtime.device)
        if self.mixer is not None:
            shard = runtime.processes.shard
            inputs, targets = self.mixer(inputs, targets, state.step, number * shard.world + shard.rank)
        if state.step == 0 and number == 0:
            show_batch(context.log, plan.name, inputs, context.preprocess, context.log.total_step(plan.index, 0))
        stage = plan.stage
        with runtime.autocast():
            logits = self.wrapped(inputs)
            loss = training_loss(logits, targets, stage, plan.class_weights)
            if state.teacher is not None:
                taught = distillation_loss(logits, state.teacher(inputs), stage.distill_temperature)
                loss = (1 - stage.distill_alpha) * loss + stage.distill_alpha * taught
        return loss * (len(images) / plan.share(runtime, state.step))

    def _share_live_statistics(self) -> None:
        """Give the average the network's own statistics where the trunk is frozen.

        They describe the input of the last norm, which the head does not change, so those of the network are exact for
        the averaged head, while averaged ones would lag behind.
        """
        state, moves = self.state, self.plan.move_plan
        assert state.average is not None
        if not moves.is_trunk_frozen:
            return
        own = dict(state.model.named_buffers())
        for name, buffer in state.average.module.named_buffers():
            if name in moves.statistics:
                buffer.copy_(own[name])

    def evaluate(self) -> None:
        """End an epoch: measure on the selecting split, remember the best weights and save.

        Raises:
            Stopped: a signal came while measuring; nothing of the measurement is kept.
        """
        context, plan, state = self.context, self.plan, self.state
        self.is_measured = False
        evaluation, select = context.recipe.evaluation, context.collection.select
        epoch = round(plan.timeline.epochs_done(state.step))
        if context.measures and (epoch % evaluation.every_epochs == 0 or state.step == plan.last_step):
            size = plan.size if evaluation.select_size == "stage" else evaluation.select_size
            with context.runtime.averaged(state.shipped, state.model):
                raw = None if state.average is None else context.measure(state.model, select, [size])
                found = context.measure(state.shipped, select, [size])
                figures = epoch_figures(found)
                figures = figures if state.may_select_by_loss else replace(figures, losses=None)
                state.keep_if_better(figures, always=evaluation.keep == "last")
            context.log.event(
                "eval",
                **self._where(),
                split=select,
                weights=state.shipped_label,
                num_images=found.num_images,
                results=[without_confusion(r) for r in found.results],
                **({} if raw is None else {"raw_results": [without_confusion(r) for r in raw.results]}),
            )
            if context.runtime.processes.is_main and self._is_over():
                total_step = context.log.total_step(plan.index, state.step)
                split = context.collection.split(select)
                show_confused(context.log, plan.name, split, found, context.preprocess.at(size), total_step)
        self.is_measured = True
        if epoch % context.recipe.output.save_every_epochs == 0 or self._is_over():
            self.save()
            context.log.status("running")

    def save(self) -> None:
        """Write checkpoints/last.pt, and a copy under its step where the newest are kept."""
        save_stage(self)
        self.saved_step, self.saved_at = self.state.step, time.monotonic()

    def restore(self, content: dict[str, Any]) -> None:
        """Put the content of last.pt into the freshly begun stage."""
        restore_stage(self, content)
        self.saved_step = self.state.step
        if content.get("is_out_of_time"):
            self.plan, self.is_out_of_time = self.plan.stopped_at(self.state.step), True
        if self.plan.stage.head != "keep":
            # It was set before the first step, and this stage was made anew without that.
            own, heads = copy_state(self.state.model), head_names(self.state.model)
            self._before |= {name: own[name] for name in own if is_inside(name, heads)}

    def _is_due(self) -> bool:
        """Return whether steps or minutes ask for a checkpoint within the epoch."""
        output, step = self.context.recipe.output, self.state.step
        if step == self.saved_step:
            return False
        by_step = output.save_every_steps and step % output.save_every_steps == 0
        minutes = output.save_every_minutes
        return bool(by_step or (minutes and time.monotonic() - self.saved_at > 60 * minutes))

    def _is_over(self) -> bool:
        return self.plan.is_over(self.state.step, self.state.progress_step, self.context.recipe.evaluation.every_epochs)

    def _take_best(self) -> None:
        context, plan, state = self.context, self.plan, self.state
        state.shipped.load_state_dict(state.best_weights)
        what = "best top-1" if state.lowest_losses is None else "latest within one standard error of the lowest loss"
        why = "last" if context.recipe.evaluation.keep == "last" else f"{what} on {context.collection.select}"
        if state.step < plan.last_step:
            why += f"; no better for {plan.stage.patience} evaluations, so the stage ended after {state.step} steps"
        elif state.step < plan.total_steps:
            reason = "when its time was up" if self.is_out_of_time else "as stop_step says"
            why += f"; the stage ended after {state.step} of {plan.total_steps} steps, {reason}"
        context.log.event(
            "kept",
            stage=plan.name,
            stage_index=plan.index,
            step=state.best_step,
            epoch=plan.timeline.epochs_done(state.best_step),
            top1=state.best_top1,
            why=why,
        )
        warning = average_warning(context.recipe.ema, plan.stage, state.best_step, plan.key)
        if warning and not plan.warning:
            context.log.event("warning", text=warning)

    def _batches(self) -> Generator[Batch]:
        """Yield this process's part of the stage's batches; unreadable images are added to `bad_images`."""
        context, plan = self.context, self.plan
        data = context.recipe.data
        policy = ReadPolicy(
            resolve_workers(data.workers),
            data.on_bad_image,
            data.max_bad_images,
            data.decode,
            data.hold_gib,
            pin_memory=context.runtime.device.type == "cuda",
        )
        draw = Draw(context.recipe.seed, plan.index, self.state.step, context.runtime.processes.shard)
        split, preprocess = context.collection.split("train"), context.preprocess.at(plan.size)
        loader = train_batches(split, plan.stage, preprocess, draw, policy, self.bad_images.own)
        with closing(loader):
            for batch in loader:
                yield batch.images, batch.labels

    def _where(self) -> dict[str, Any]:
        return {
            "stage": self.plan.name,
            "stage_index": self.plan.index,
            "step": self.state.step,
            "epoch": round(self.plan.timeline.epochs_done(self.state.step), 4),
        }
