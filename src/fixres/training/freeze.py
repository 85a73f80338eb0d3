"""Moving only what the plan names: freezing, modes, and the proof afterwards."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fixres.io.tensors import changed_tensors
from fixres.models.moves import Plan


def apply_plan(model: nn.Module, plan: Plan) -> None:
    """Let gradients reach exactly the planned parameters.

    On parameters, never on modules: `module.requires_grad = True` only creates an attribute.
    """
    trained = set(plan.trained)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    reached = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert reached == trained, f"the plan was not applied: {sorted(reached ^ trained)[:5]}"


def set_train_mode(model: nn.Module, plan: Plan) -> None:
    """Put the network in the mode the plan asks for. The one place that switches a network to training.

    Everything is in evaluation mode, dropout and stochastic depth of frozen parts included, except the modules the plan
    trains as a whole, of which those frozen by name are excepted again, and the norms whose statistics it lets live.
    Norms with frozen statistics are in evaluation mode; what timm puts inside them, such as DropBlock, is not.
    """
    model.eval()
    for name in (*plan.whole, *plan.live_norms):
        model.get_submodule(name).train()
    for name in plan.frozen:
        model.get_submodule(name).eval()
    for name in plan.frozen_norms:
        model.get_submodule(name).training = False


def verify_plan(before: Mapping[str, Tensor], after: Mapping[str, Tensor], plan: Plan) -> tuple[str, ...]:
    """Check which tensors a stage moved; return the planned ones that stayed as they were.

    Raises:
        AssertionError: a tensor outside the plan changed.
    """
    changed = changed_tensors(dict(before), dict(after))
    strays = sorted(changed - plan.tensors)
    assert not strays, f"tensors outside the plan changed: {strays[:8]}"
    return tuple(sorted(plan.tensors - changed))
