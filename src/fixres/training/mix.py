"""Between before and after a fix: head and statistics interpolated, which keeps more of other kinds of pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from fixres.config.recipe import Data
from fixres.data.splits import Split
from fixres.evaluation.evaluate import evaluate, network_views
from fixres.evaluation.other_pictures import open_elsewhere
from fixres.io.tensors import copy_state
from fixres.training.context import RunContext
from fixres.training.stage_plan import StagePlan

_KEY = "fix.mix_also"
_SHARES = (0.25, 0.5, 0.75, 1.0)


def interpolated(before: Mapping[str, Tensor], after: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return (1 - share) before + share after, tensor by tensor (Wortsman et al. 2022, WiSE-FT).

    What is no number of reals, or has another shape after, is as after: a position grid of another size.
    """
    return {
        name: before[name].lerp(tensor, share)
        if name in before and tensor.is_floating_point() and before[name].shape == tensor.shape
        else tensor
        for name, tensor in after.items()
    }


def mix_fix(context: RunContext, plan: StagePlan, before: nn.Module, fixed: nn.Module, *, is_new_head: bool) -> None:
    """Set `fixed`, at the size of `plan`, to the share of the fix that its stage asks for, and leave that in the log.

    With `auto` it is that of the least loss on the selecting split, in the mean with those of the collections that
    `mix_also` names; of equal ones the larger share.

    Raises:
        UserError: a collection cannot be opened.
    """
    asked = plan.stage.mix
    if asked == 1:
        return
    if is_new_head:
        context.log.event("note", text=f"nothing is mixed: before this {plan.name} the head was a random one")
        return
    new = copy_state(fixed)
    old = {name: tensor.to(new[name].device) if name in new else tensor for name, tensor in copy_state(before).items()}
    splits = [context.collection.split(context.collection.select)]
    classes = context.collection.classes
    splits += [open_elsewhere(uri, classes, context.recipe.data, _KEY) for uri in plan.stage.mix_also]
    rows: list[tuple[float, float, list[float]]] = []
    for share in _SHARES if asked == "auto" else (asked,):
        fixed.load_state_dict(interpolated(old, new, share))
        losses = [_loss(context, fixed, split, plan.size) for split in splits] if asked == "auto" else []
        rows.append((math.fsum(losses) / max(1, len(losses)), -share, losses))
    chosen = -min(rows)[1]
    tried = [{"share": -share, "loss": loss, "losses": losses} for loss, share, losses in rows]
    fixed.load_state_dict(interpolated(old, new, chosen))
    context.log.event("mix", stage=plan.name, stage_index=plan.index, size=plan.size, share=chosen, tried=tried)
    where = (
        ""
        if asked != "auto"
        else f": the least loss on {context.collection.select}" + "".join(f" and {uri}" for uri in plan.stage.mix_also)
    )
    context.log.event("note", text=f"{chosen:g} of the fix, {1 - chosen:g} of what was before{where}")


def require_mix(uris: tuple[str, ...], classes: tuple[str, ...], data: Data) -> None:
    """Open the collections that decide on a mix, so that one that cannot be is told before anything runs.

    Raises:
        UserError: a collection cannot be opened, or has other classes.
    """
    for uri in uris:
        open_elsewhere(uri, classes, data, _KEY)


def _loss(context: RunContext, model: nn.Module, split: Split, size: int) -> float:
    views = network_views(model, [context.preprocess.at(size)])
    return float(evaluate(views, split, context.runtime, context.reading).results[0]["loss"])
