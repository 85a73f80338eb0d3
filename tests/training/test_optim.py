"""Optimizers: each does what its paper says, each option does something, each state goes on to the bit."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.models.anatomy import head_names
from fixres.models.build import build_model
from fixres.models.moves import make_plan
from fixres.training.freeze import apply_plan
from fixres.training.optim import make_optimizer, set_learning_rate

NAMES = ["sgd", "nesterov", "adamw", "lamb", "lion", "muon"]
Make = Callable[..., Recipe]


class Small(nn.Module):
    """A matrix, a vector, and one more matrix as the head."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Linear(6, 5)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.norm(self.body(inputs)).tanh()
        out: Tensor = self.head(hidden)
        return out


def optimizer_of(make_recipe: Make, model: nn.Module, **optim: Any) -> torch.optim.Optimizer:
    recipe = make_recipe(optim={"lr": 0.02, **optim})
    return make_optimizer(model, recipe.optim, recipe.train)


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, shape: tuple[int, ...] = (6,)) -> None:
    """Take steps whose data follow from their number alone."""
    for step in steps:
        inputs = torch.randn(4, *shape, generator=torch.Generator().manual_seed(step))
        set_learning_rate(optimizer, 0.01 / (1 + step))
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def moved(make_recipe: Make, **optim: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the gradients of one step and by how much it moved each parameter, at a learning rate of 0.02."""
    model = Small()
    optimizer = optimizer_of(make_recipe, model, **{"weight_decay": 0.0, **optim})
    before = state_of(model)
    model(torch.randn(4, 6, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    optimizer.step()
    return gradients, {name: tensor - before[name] for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
@pytest.mark.parametrize("name", NAMES)
def test_a_saved_optimizer_goes_on_to_the_bit(make_recipe: Make, name: str, layer_decay: float) -> None:
    torch.manual_seed(0)
    straight = build_model("test_resnet", 3)
    stopped = copy.deepcopy(straight)
    optim = {"name": name, "layer_decay": layer_decay, "weight_decay": 0.05}
    learn(straight, optimizer_of(make_recipe, straight, **optim), range(5), (3, 32, 32))
    first = optimizer_of(make_recipe, stopped, **optim)
    learn(stopped, first, range(2), (3, 32, 32))
    file = io.BytesIO()
    torch.save({"model": stopped.state_dict(), "optimizer": first.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = build_model("test_resnet", 3)
    again.load_state_dict(saved["model"])
    second = optimizer_of(make_recipe, again, **optim)
    second.load_state_dict(saved["optimizer"])
    learn(again, second, range(2, 5), (3, 32, 32))
    other = again.state_dict()
    assert all(torch.equal(tensor, other[key]) for key, tensor in straight.state_dict().items())


# --- each optimizer is the one it is called


def test_sgd_follows_the_gradient_and_nesterov_looks_ahead(make_recipe: Make) -> None:
    gradients, change = moved(make_recipe, name="sgd", momentum=0.9)
    assert torch.allclose(change["body.weight"], -0.02 * gradients["body.weight"], atol=1e-6)
    gradients, change = moved(make_recipe, name="nesterov", momentum=0.9)
    assert torch.allclose(change["body.weight"], -0.02 * 1.9 * gradients["body.weight"], atol=1e-6)


def test_lion_moves_by_the_sign(make_recipe: Make) -> None:
    gradients, change = moved(make_recipe, name="lion")
    assert torch.allclose(change["body.weight"], -0.02 * gradients["body.weight"].sign(), atol=1e-6)


def test_adamw_begins_with_the_sign_and_eps_dampens_it(make_recipe: Make) -> None:
    gradients, change = moved(make_recipe, name="adamw")
    assert torch.allclose(change["body.weight"], -0.02 * gradients["body.weight"].sign(), atol=1e-4)
    _, dampened = moved(make_recipe, name="adamw", eps=10.0)
    assert dampened["body.weight"].abs().max() < 0.1 * change["body.weight"].abs().max()


def test_lamb_moves_by_a_share_of_the_norm_of_the_weights(make_recipe: Make) -> None:
    model = Small()
    _, change = moved(make_recipe, name="lamb", weight_decay=0.01, no_decay="none")
    for name, parameter in model.named_parameters():
        assert change[name].norm() == pytest.approx(0.02 * float(parameter.detach().norm()), rel=1e-3), name


def test_muon_makes_the_step_of_a_matrix_orthogonal_and_of_a_vector_adamw(make_recipe: Make) -> None:
    gradients, change = moved(make_recipe, name="muon")
    # The norm behind the matrix takes one direction out of its gradient.
    values = torch.linalg.svdvals(change["body.weight"])[:-1]
    raw = torch.linalg.svdvals(gradients["body.weight"])[:-1]
    assert values.max() / values.min() < 2 < raw.max() / raw.min()
    sign = -0.02 * gradients["norm.weight"].sign()
    assert torch.allclose(change["norm.weight"], sign, atol=1e-4)


@pytest.mark.parametrize(("name", "key"), [("sgd", "momentum"), ("muon", "momentum"), ("adamw", "momentum")])
def test_momentum_reaches_the_optimizer(make_recipe: Make, name: str, key: str) -> None:
    changes = []
    for momentum in (0.5, 0.9):
        model = Small()
        learn(model, optimizer_of(make_recipe, model, name=name, **{key: momentum}), range(3))
        changes.append(state_of(model)["body.weight"])
    assert not torch.allclose(*changes, atol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "lamb", "lion", "muon"])
def test_beta2_reaches_the_optimizer(make_recipe: Make, name: str) -> None:
    changes = []
    for beta2 in (0.5, 0.999):
        model = Small()
        learn(model, optimizer_of(make_recipe, model, name=name, beta2=beta2), range(3))
        changes.append(state_of(model)["norm.weight"])
    assert not torch.equal(*changes)


# --- weight decay


def shrunk(make_recipe: Make, model: nn.Module, **optim: Any) -> set[str]:
    """Return the parameters that weight decay alone makes smaller."""
    optimizer = optimizer_of(make_recipe, model, weight_decay=0.1, **optim)
    before = state_of(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


EVERY = {name for name, _ in Small().named_parameters()}


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize(
    ("no_decay", "decayed"),
    [
        ("vectors", {"body.weight", "head.weight"}),
        ("none", EVERY),
        (["norm", "*.bias"], {"body.weight", "head.weight"}),
        (["head"], EVERY - {"head.weight", "head.bias"}),
    ],
)
def test_no_decay_says_what_weight_decay_leaves_alone(
    make_recipe: Make, no_decay: str | list[str], decayed: set[str], layer_decay: float
) -> None:
    assert shrunk(make_recipe, Small(), no_decay=no_decay, layer_decay=layer_decay) == decayed


def test_what_timm_exempts_decays_only_with_none(make_recipe: Make) -> None:
    assert "pos_embed" not in shrunk(make_recipe, build_model("test_vit", 3))
    assert "pos_embed" in shrunk(make_recipe, build_model("test_vit", 3), no_decay="none")


def test_a_pattern_that_matches_nothing_is_refused(make_recipe: Make) -> None:
    with pytest.raises(UserError, match=r"optim\.no_decay: 'gamma' matches no parameter") as caught:
        optimizer_of(make_recipe, Small(), no_decay=["norm", "gamma"])
    assert "their names begin with body, norm, head" in str(caught.value)


# --- layers


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_layer_decay_makes_the_steps_of_early_layers_smaller(make_recipe: Make, name: str) -> None:
    model = build_model(name, 3)
    optimizer = optimizer_of(make_recipe, model, layer_decay=0.5)
    scales = {id(p): group["lr"] / 0.02 for group in optimizer.param_groups for p in group["params"]}
    found = [scales[id(p)] for p in model.parameters()]
    assert {p.requires_grad for p in model.parameters()} == {True}
    assert found == sorted(found)
    assert len(found) == len(scales)
    head = head_names(model)[0]
    assert scales[id(model.get_submodule(head).weight)] == 1.0
    assert min(found) == pytest.approx(0.5 ** (len(set(found)) - 1))


def test_the_step_of_the_first_block_is_smaller_by_the_factor(make_recipe: Make) -> None:
    steps = []
    for layer_decay in (1.0, 0.5):
        torch.manual_seed(0)
        model = build_model("test_resnet", 3, init="torch").eval()
        optimizer = optimizer_of(make_recipe, model, layer_decay=layer_decay, weight_decay=0.0)
        before = state_of(model)
        set_learning_rate(optimizer, 0.5)
        model(torch.ones(2, 3, 32, 32)).square().mean().backward()
        optimizer.step()
        steps.append({name: p.detach() - before[name] for name, p in model.named_parameters()})
    first, head = "conv1.0.weight", "fc.weight"
    groups = len({g["lr_scale"] for g in optimizer.param_groups})
    assert float(steps[1][first].norm() / steps[0][first].norm()) == pytest.approx(0.5 ** (groups - 1), rel=1e-3)
    assert torch.equal(steps[1][head], steps[0][head])


def test_a_frozen_part_keeps_no_state(make_recipe: Make) -> None:
    model = build_model("test_resnet", 3)
    plan = make_plan(model, "all", 32, freeze=["conv1", "layer1"])
    apply_plan(model, plan)
    for layer_decay in (1.0, 0.5):
        optimizer = optimizer_of(make_recipe, model, name="adamw", layer_decay=layer_decay)
        names = {id(p): name for name, p in model.named_parameters()}
        assert {names[id(p)] for g in optimizer.param_groups for p in g["params"]} == set(plan.trained)
