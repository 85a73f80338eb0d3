"""Which tensors every plan moves and which stay frozen, over families of networks: exactly those, and nothing else."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from fixres.config.loading import load
from fixres.errors import UserError
from fixres.io.tensors import changed_tensors, copy_state
from fixres.models.build import build_model
from fixres.models.moves import Plan, make_plan
from fixres.training.freeze import apply_plan, set_train_mode, verify_plan

MOVES = [
    # name, moves, size: one row per family and kind of end
    ("test_resnet", "head", 64),
    ("test_resnet", "head+stats", 64),
    ("test_resnet", "head+norm", 64),
    ("test_resnet", "last-stage", 64),
    ("test_resnet", "stats", 64),
    ("test_resnet", "all", 64),
    ("test_efficientnet", "head+stats", 64),
    ("test_efficientnet", "last-stage", 64),
    ("mobilenetv3_small_050", "last-stage", 64),
    ("mobilenetv3_small_050", "head+norm", 64),
    ("repvgg_a0", "head+norm", 64),
    ("repvgg_a0", "stats", 64),
    ("densenet121", "last-stage", 64),
    ("inception_v3", "head+stats", 96),
    ("levit_128s", "head", 224),
    ("levit_128s", "head+norm", 224),
    ("test_vit", "head", 160),
    ("test_vit", "head+norm", 160),
    ("test_vit", "last-stage", 160),
    ("deit_tiny_distilled_patch16_224", "head+norm", 64),
    ("test_convnext", "head", 64),
    ("test_convnext", "head+norm", 64),
    ("test_convnext", "last-stage", 64),
    ("convformer_s18", "head+norm", 64),
    ("test_nfnet", "head", 64),
    ("test_nfnet", "last-stage", 64),
    ("test_byobnet", "last-stage", 64),
    ("test_mambaout", "head+norm", 64),
    ("regnetx_002", "head+norm", 64),
    ("dla34", "head+norm", 64),
    ("mobilevit_xxs", "last-stage", 64),
    ("ghostnet_100", "head+stats", 64),
    ("poolformer_s12", "head+norm", 64),
    ("edgenext_xx_small", "head+norm", 64),
    ("rexnet_100", "last-stage", 64),
    ("fastvit_t8", "head+stats", 64),
]

STAGES = {
    # name: (size, the modules of the last stage)
    "test_resnet": (64, ("layer4",)),
    "tf_efficientnet_lite0": (64, ("blocks.6", "conv_head", "bn2")),
    "mobilenetv3_small_050": (64, ("blocks.4.1", "blocks.4.2", "blocks.5.0", "conv_head")),
    "densenet121": (64, ("features.denseblock4", "features.norm5")),
    "repvgg_a0": (64, ("stages.3.0",)),
    "mobilevit_xxs": (64, ("stages.4.1", "final_conv")),
    "test_vit": (160, ("blocks.5", "norm")),
    "test_nfnet": (64, ("stages.3.0", "final_conv")),
    "regnetx_002": (64, ("s4",)),
}


def one_step(model: nn.Module, plan: Plan, size: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Do one step as a stage does; return the state before and after."""
    apply_plan(model, plan)
    before = copy_state(model)
    set_train_mode(model, plan)
    images = torch.randn(2, 3, size, size)
    output = model(images)
    if plan.trained:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        output = sum(output) if isinstance(output, tuple) else output
        torch.nn.functional.cross_entropy(output, torch.tensor([0, 1])).backward()
        optimizer.step()
    return before, copy_state(model)


@pytest.mark.parametrize(("name", "moves", "size"), MOVES)
def test_exactly_the_planned_tensors_change(name: str, moves: str, size: int) -> None:
    # A bias in front of a norm has a gradient of rounding alone, which for MobileViT and seed 0 comes out as exactly 0.
    torch.manual_seed(1)
    bound = {"img_size": 64} if name.startswith("deit") else {}
    model = build_model(name, 3, {"drop_rate": 0.1, **bound})
    # timm starts residual branches at zero, which leaves gradients zero, or too small to be seen, for a step.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    plan = make_plan(model, moves, size)
    assert plan.moves == moves
    before, after = one_step(model, plan, size)
    assert not verify_plan(before, after, plan)
    assert changed_tensors(before, after) == plan.tensors


@pytest.mark.parametrize("name", STAGES)
def test_the_last_stage_is_found_by_structure(name: str) -> None:
    size, stage = STAGES[name]
    assert make_plan(build_model(name, 3), "last-stage", size).whole == stage


def test_the_statistics_alone_move_no_parameter_and_need_no_head() -> None:
    plan = make_plan(build_model("test_resnet", 3), "stats", 64)
    assert (plan.trained, plan.num_trained) == ((), 0)
    assert plan.live_norms == ("layer4.0.bn2", "layer4.0.downsample.2")


def test_the_norms_of_head_and_norm_are_those_of_the_paper() -> None:
    plan = make_plan(build_model("resnet50", 10), "head+norm", 64)
    assert set(plan.trained) == {"fc.weight", "fc.bias", "layer4.2.bn3.weight", "layer4.2.bn3.bias"}
    assert plan.live_norms == ("layer4.2.bn3",)


def test_the_plan_line_says_what_moves() -> None:
    plan = Plan("head+stats", ("fc.weight", "fc.bias"), ("layer4.2.bn3",), (), 2_562, 3_374_050)
    said = "moves head+stats: trains 2 tensors, 2.56 k of 3.37 M parameters; running statistics updated: layer4.2.bn3"
    assert plan.describe() == said


REFUSED = [
    ("test_nfnet", "head+norm", 64, "it has no norm\n  use moves: head, last-stage or all"),
    ("test_nfnet", "stats", 64, "it has no norm\n  use moves: head, or moves: all"),
    ("test_vit", "stats", 160, r"norm \(LayerNorm\) keeps no running statistics\n  use moves: head, head\+norm or all"),
    ("test_convnext", "head+stats", 64, r"keeps no running statistics\n  use moves: head, head\+norm or all"),
]


@pytest.mark.parametrize(("name", "moves", "size", "text"), REFUSED)
def test_what_does_not_suit_a_network_is_refused_with_what_does(name: str, moves: str, size: int, text: str) -> None:
    with pytest.raises(UserError, match=text):
        make_plan(build_model(name, 3), moves, size)


def test_a_stage_that_trains_whole_drops_out_and_the_rest_does_not() -> None:
    model = build_model("test_resnet", 3, {"drop_path_rate": 0.5})
    plan = make_plan(model, "last-stage", 64)
    set_train_mode(model, plan)
    training = {name for name, module in model.named_modules() if module.training}
    assert "layer4.0.drop_path" in training
    assert all(name.startswith("layer4") for name in training)
    assert not plan.is_trunk_frozen


def test_resnet50_head_plan_is_the_published_one() -> None:
    plan = make_plan(build_model("resnet50", 1000), "head+stats", 64)
    assert (plan.num_trained, plan.num_parameters) == (2_049_000, 25_557_032)
    assert plan.tensors == {
        "fc.weight",
        "fc.bias",
        "layer4.2.bn3.running_mean",
        "layer4.2.bn3.running_var",
        "layer4.2.bn3.num_batches_tracked",
    }


@pytest.mark.parametrize(("name", "size", "expected"), [("resnet18", 64, "head+stats"), ("test_vit", 160, "head")])
def test_auto_moves_statistics_only_where_there_are_any(name: str, size: int, expected: str) -> None:
    assert make_plan(build_model(name, 3), "auto", size).moves == expected


@pytest.mark.parametrize(("name", "size"), [("test_vit", 160), ("convnext_atto", 64), ("vgg11", 64)])
def test_head_and_statistics_is_refused_without_statistics(name: str, size: int) -> None:
    with pytest.raises(UserError, match=r"use moves: head"):
        make_plan(build_model(name, 3), "head+stats", size)


def test_a_frozen_part_stays_statistics_and_all() -> None:
    torch.manual_seed(0)
    model = build_model("test_resnet", 3, {"drop_path_rate": 0.5}, init="torch")
    plan = make_plan(model, "all", 32, freeze=["conv1", "bn1", "layer1", "*.downsample.*", "fc.bias"])
    assert {name.partition(".")[0] for name in plan.frozen} >= {"conv1", "bn1", "layer1"}
    assert "fc" not in plan.frozen
    assert plan.num_trained < plan.num_parameters
    assert "; frozen: " in plan.describe()
    apply_plan(model, plan)
    set_train_mode(model, plan)
    assert not any(module.training for module in model.get_submodule("layer1").modules())
    assert model.get_submodule("layer2.0.bn1").training
    before = copy_state(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    changed = changed_tensors(before, dict(model.state_dict()))
    assert changed <= plan.tensors
    assert not any(name.startswith(("conv1", "bn1", "layer1")) or "downsample" in name for name in changed)
    assert "fc.bias" not in changed
    assert {"fc.weight", "layer2.0.bn1.running_mean", "layer4.0.conv1.weight"} <= changed


def test_a_norm_of_which_a_part_is_frozen_goes_on() -> None:
    model = build_model("test_resnet", 3)
    plan = make_plan(model, "all", 32, freeze=["*.bias"])
    everything = make_plan(model, "all", 32)
    assert plan.live_norms == everything.live_norms
    assert not plan.frozen
    assert {name for name in everything.trained if name not in plan.trained} == {
        name for name, _ in model.named_parameters() if name.endswith(".bias")
    }


def test_freezing_in_vain_or_everything_is_refused() -> None:
    model = build_model("test_resnet", 3)
    with pytest.raises(UserError, match="'layer9' matches no parameter of the network") as caught:
        make_plan(model, "all", 32, freeze=["conv1", "layer9"])
    assert "their names begin with conv1" in str(caught.value)
    with pytest.raises(UserError, match="leaves nothing of 'test_resnet' to train"):
        make_plan(model, "all", 32, freeze=["*"])


@pytest.mark.parametrize(("name", "drop"), [("pnasnet5large_fixres", "head_drop"), ("convnext_atto", "head.drop")])
def test_dropout_in_front_of_the_classifier_is_active_while_the_last_stage_trains(name: str, drop: str) -> None:
    size = 96
    model = build_model(name, 3, {"drop_rate": 0.5})
    plan = make_plan(model, "last-stage", size)
    assert drop in plan.whole
    set_train_mode(model, plan)
    assert model.get_submodule(drop).training
    features = torch.randn(2, model.num_features)
    dropped = model.get_submodule(drop)(features)
    assert 0.3 < (dropped == 0).float().mean() < 0.7
    # A frozen last stage has none, and nor has a network built without.
    set_train_mode(model, make_plan(model, "head", size))
    assert not model.get_submodule(drop).training
    assert drop not in make_plan(build_model(name, 3), "last-stage", size).whole


def test_the_recipe_of_pnasnet_has_the_published_dropout() -> None:
    assert load("fixres/pnasnet5-fix480").model.kwargs == {"drop_rate": 0.5}


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        ("test_resnet", "all"),
        ("test_resnet", "last-stage"),
        ("test_resnet", "head+norm"),
        ("test_vit", "all"),
        ("mobilenetv3_small_050", "all"),
    ],
)
def test_frozen_statistics_stay_while_the_weights_of_their_norms_train(name: str, moves: str) -> None:
    torch.manual_seed(1)
    model = build_model(name, 3, {"img_size": 64} if name == "test_vit" else {})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    plan, plain = (make_plan(model, moves, 64, norm_statistics=kind) for kind in ("frozen", "batch"))
    assert plan.trained == plain.trained
    assert (plan.live_norms, plan.statistics) == ((), ())
    assert plan.frozen_norms == plain.live_norms
    assert ("norm statistics frozen" in plan.describe()) == bool(plain.live_norms)
    before, after = one_step(model, plan, 64)
    assert not verify_plan(before, after, plan)
    assert changed_tensors(before, after) == set(plan.trained)


def test_norms_of_any_kind_with_running_statistics_can_be_frozen() -> None:
    model = build_model("test_resnet", 3)
    model.bn1 = nn.InstanceNorm2d(model.bn1.num_features, affine=True, track_running_stats=True)
    plan = make_plan(model, "all", 64, norm_statistics="frozen")
    before, after = one_step(model, plan, 64)
    assert not {name for name in changed_tensors(before, after) if "running" in name}
    assert torch.equal(model.bn1.running_mean, before["bn1.running_mean"])


def test_what_is_in_a_norm_with_frozen_statistics_still_trains() -> None:
    model = build_model("mobilenetv3_small_050", 3)
    norm = model.get_submodule("blocks.1.0.bn1")
    norm.drop = nn.Dropout(0.5)
    set_train_mode(model, make_plan(model, "all", 64, norm_statistics="frozen"))
    assert (norm.training, norm.drop.training) == (False, True)


def test_moving_and_freezing_the_same_statistics_is_refused_and_auto_moves_the_head() -> None:
    model = build_model("test_resnet", 3)
    for moves in ("head+stats", "stats"):
        with pytest.raises(UserError, match=rf"moves {re.escape(moves)} moves the statistics of layer4.* frozen keeps"):
            make_plan(model, moves, 64, norm_statistics="frozen")
    plan = make_plan(model, "auto", 64, norm_statistics="frozen")
    assert (plan.moves, plan.tensors) == ("head", {"fc.weight", "fc.bias"})
