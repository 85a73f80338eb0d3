"""What timm provides around the step: the optimizer, the average of the weights, mixup and cutmix."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from fixres.config.recipe import Ema, Optim, Stage
from fixres.data.sampling import sample_seed
from fixres.errors import UserError
from fixres.models.moves import matching
from fixres.training.lr_schedule import ema_decay

MUON_BETA1 = 0.9
"""First beta of the AdamW step that muon takes for vectors; optim.momentum is that of the matrices."""


def make_optimizer(model: nn.Module, optim: Optim, stage: Stage) -> torch.optim.Optimizer:
    """Return the optimizer over the parameters that require a gradient, in groups by weight decay and layer.

    Raises:
        UserError: a pattern of `optim.no_decay` matches no parameter.
    """
    # timm's "momentum" is SGD without Nesterov; its "sgd" turns Nesterov on.
    names = {"sgd": "momentum", "nesterov": "sgd"}
    beta1 = MUON_BETA1 if optim.name == "muon" else optim.momentum
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        names.get(optim.name, optim.name),
        lr=stage.lr,
        weight_decay=stage.weight_decay,
        momentum=optim.momentum,
        eps=optim.eps,
        betas=(beta1, optim.beta2),
        param_group_fn=lambda network: _groups(network, optim, stage.weight_decay),
    )
    set_learning_rate(optimizer, stage.lr)
    return optimizer


def _groups(model: nn.Module, optim: Optim, weight_decay: float) -> list[dict[str, Any]]:
    """Return the trained parameters, grouped by whether they decay and, with layer_decay, by layer."""
    is_vectors = optim.no_decay == "vectors"
    if is_vectors:
        exempt: Collection[str] = getattr(model, "no_weight_decay", set)()
    else:
        patterns = () if isinstance(optim.no_decay, str) else optim.no_decay
        try:
            exempt = matching((name for name, _ in model.named_parameters()), patterns)
        except UserError as error:
            raise UserError(f"optim.no_decay: {error}") from None
    settings = {"no_weight_decay_list": exempt, "weight_decay_exclude_1d": is_vectors}
    if optim.layer_decay == 1:
        return list(param_groups_weight_decay(model, weight_decay, **settings))
    return list(param_groups_layer_decay(model, weight_decay, layer_decay=optim.layer_decay, **settings))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate `lr`, times the scale of its layer where layer_decay gave it one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


class WeightAverage(ModelEmaV3):  # type: ignore[misc]
    """timm's average of weights and statistics, with the decay of our pure rule."""

    def __init__(self, model: nn.Module, ema: Ema) -> None:
        super().__init__(model, decay=ema.decay)
        self.settings = ema

    def get_decay(self, step: int | None = None) -> float:
        """Return the fraction kept at update `step` (1-based)."""
        assert step is not None, "the decay rule needs the step"
        return ema_decay(step, decay=self.settings.decay, rule=self.settings.rule, ramp_steps=self.settings.ramp_steps)


class Mixer:
    """Mixup and cutmix of a batch, drawn from (seed, stage, step, chunk) alone so that a resumed run repeats it."""

    def __init__(self, stage: Stage, num_classes: int, seed: int, stage_index: int) -> None:
        self.mixup = Mixup(
            mixup_alpha=stage.mixup,
            cutmix_alpha=stage.cutmix,
            label_smoothing=stage.label_smoothing,
            num_classes=num_classes,
        )
        self.seed = seed
        self.stage_index = stage_index

    def __call__(self, images: Tensor, labels: Tensor, step: int, chunk: int = 0) -> tuple[Tensor, Tensor]:
        """Return mixed images `[B, 3, S, S]` (float) and soft targets `[B, C]`; B is even.

        `chunk` numbers the micro-batches of all processes within a step.
        """
        state = np.random.get_state()
        try:
            np.random.seed(sample_seed(self.seed, self.stage_index, step, chunk, 0) % 2**32)
            mixed, targets = self.mixup(images, labels)
        finally:
            np.random.set_state(state)
        return mixed, targets


def load_named_state(optimizer: torch.optim.Optimizer, model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Give the optimizer momentum by parameter name, `PARAMETER.momentum_buffer` and the like, never by position.

    Raises:
        UserError: a tensor belongs to no trained parameter, has another shape, or a parameter has none.
    """
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    parameters = {name: p for name, p in model.named_parameters() if id(p) in trained}
    collected: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        name, _, entry = key.rpartition(".")
        if name not in parameters:
            raise UserError(f"{source} has state for '{name}', which this stage does not train\n  use moves: all")
        if entry != "step" and tensor.shape != parameters[name].shape:
            raise UserError(f"{source}: '{key}' is {list(tensor.shape)}, the parameter {list(parameters[name].shape)}")
        collected.setdefault(name, {})[entry] = tensor
    without = [name for name in parameters if name not in collected]
    if without:
        raise UserError(f"{source} has no state for {', '.join(without[:4])}{' ...' if len(without) > 4 else ''}")
    for name, entries in collected.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            entry: tensor.clone() if entry == "step" else tensor.to(parameter.device, parameter.dtype, copy=True)
            for entry, tensor in entries.items()
        }
