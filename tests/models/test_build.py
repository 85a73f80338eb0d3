from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fixres.checkpoints.foreign.lukemelas import efficientnet_names, from_lukemelas, packaged_lite0_file
from fixres.errors import UserError
from fixres.io.tensors import changed_tensors, copy_state, read_weights
from fixres.models.anatomy import head_names, last_norms
from fixres.models.build import build_model, load_strict
from fixres.models.moves import make_plan
from fixres.models.sizes import at_size, bound_size, gmacs, probe
from fixres.training.freeze import apply_plan, set_train_mode

CASES = {
    # name: (size, head, last norms)
    "test_resnet": (64, ("fc",), ("layer4.0.bn2", "layer4.0.downsample.2")),
    "resnet18": (64, ("fc",), ("layer4.1.bn2",)),
    "resnet50": (64, ("fc",), ("layer4.2.bn3",)),
    "tf_efficientnet_lite0": (64, ("classifier",), ("bn2",)),
    "mobilenetv3_small_050": (64, ("classifier",), ("blocks.5.0.bn1",)),
    "repvgg_a0": (64, ("head.fc",), ("stages.3.0.conv_1x1.bn", "stages.3.0.conv_kxk.bn")),
    "test_vit": (160, ("head",), ("norm",)),
    "convnext_atto": (64, ("head.fc",), ("head.norm",)),
    "vgg11": (64, ("head.fc",), ()),
    "levit_128s": (224, ("head", "head_dist"), ("head.bn", "head_dist.bn")),
    "volo_d1_224": (224, ("head", "aux_head"), ("norm",)),
    "convformer_s18": (64, ("head.fc",), ("head.fc.norm",)),
}


@pytest.mark.parametrize("name", CASES)
def test_head_and_last_norms_are_found_by_what_they_are(name: str) -> None:
    size, head, norms = CASES[name]
    model = build_model(name, 7)
    assert head_names(model) == head
    assert last_norms(model, size) == norms
    plan = make_plan(model, "head", size)
    assert all(any(n.startswith(h + ".") for h in head) for n in plan.trained)
    assert not plan.live_norms


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


def test_finding_the_last_norm_leaves_the_network_as_it_was() -> None:
    model = build_model("resnet18", 3)
    model.train()
    model.layer1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    last_norms(model, 64)
    gmacs(model, 64)
    assert not model.layer1.training
    assert model.layer4.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_work_is_counted_in_multiply_adds() -> None:
    assert gmacs(build_model("resnet50", 1000), 224) == pytest.approx(4.1, abs=0.05)


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown model 'resnett50' - did you mean 'resnet"):
        build_model("resnett50", 2)


def test_arguments_the_network_does_not_take_are_an_error() -> None:
    with pytest.raises(UserError, match=r"model\.kwargs"):
        build_model("resnet18", 2, {"drop_pth_rate": 0.1})


def test_a_convolutional_network_takes_other_sizes_as_it_is() -> None:
    model = build_model("resnet18", 2)
    assert at_size(model, 96) is model


def test_a_transformer_gets_its_positions_resized_in_a_copy() -> None:
    model = build_model("test_vit", 2)
    larger = at_size(model, 192)
    assert larger is not model
    assert bound_size(larger) == 192
    assert bound_size(model) == 160
    assert larger(torch.zeros(1, 3, 192, 192)).shape == (1, 2)


@pytest.mark.parametrize(("name", "size", "legal"), [("test_vit", 170, "160"), ("mixer_s32_224", 256, "224")])
def test_an_illegal_size_names_legal_ones(name: str, size: int, legal: str) -> None:
    with pytest.raises(UserError, match=f"cannot take {size} px\n  it takes .*{legal}"):
        at_size(build_model(name, 2), size)


def test_a_size_of_which_a_part_would_be_ignored_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"cannot take 230 px\n  it takes 208, 224, 240, 256\n.*last 6 px would be ignored"
    ):
        at_size(build_model("vit_tiny_patch16_224", 2), 230)


def test_a_network_that_resizes_its_input_takes_one_size() -> None:
    model = build_model("crossvit_9_240", 2)
    assert at_size(model, 240) is model
    with pytest.raises(UserError, match=r"cannot take 480 px\n  it takes 240\n.*resizes every picture to 240 px"):
        at_size(model, 480)


@pytest.mark.parametrize("look", [probe, last_norms])
def test_looking_at_a_transformer_leaves_nothing_stale(look: Callable[[nn.Module, int], object]) -> None:
    # LeViT keeps its attention biases in evaluation mode: looked at, then loaded, it would compute with the old ones.
    model, other = build_model("levit_128s", 2).eval(), build_model("levit_128s", 2).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    look(model, 224)
    load_strict(model, other.state_dict(), "FILE")
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model(images), other(images))


@pytest.mark.parametrize("name", ["resnetv2_50d_evos", "resnetv2_50d_frn", "convnext_zepto_rms"])
def test_rarer_norms_are_norms_too(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, 2)
    assert [norm.rpartition(".")[2] for norm in last_norms(model, 64)] == ["norm"]


class Recurrent(nn.Module):
    """An LSTM of width 4 over 16 pixels: 16 x 4 gates x 4 x (3 + 4) multiply-adds."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.lstm(images.flatten(2).mT)[0].mean(1)


def test_work_is_counted_where_the_device_has_no_formula() -> None:
    assert gmacs(Recurrent(), 4) == pytest.approx(16 * 4 * 4 * (3 + 4) / 1e9)


def test_work_of_a_class_token_network_can_be_counted() -> None:
    model = build_model("cait_xxs24_224", 2)
    assert gmacs(model, 224) == pytest.approx(2.53, abs=0.05)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("init", ["torch", "kaiming_fan_out"])
def test_initialisation_is_redrawn_and_no_residual_starts_at_zero(init: str) -> None:
    torch.manual_seed(0)
    model = build_model("resnet18", 2, init=init)
    assert model.layer1[0].bn2.weight.min() == 1
    fan_out = model.conv1.out_channels * 7 * 7
    spread = model.conv1.weight.std().item()
    assert (abs(spread - (2 / fan_out) ** 0.5) < 0.002) is (init == "kaiming_fan_out")


def test_strict_loading_lists_everything_and_loads_nothing() -> None:
    model = build_model("resnet18", 2)
    before = model.conv1.weight.clone()
    state = dict(build_model("resnet18", 2).state_dict())
    state["extra"] = state.pop("layer1.0.bn1.weight")
    state["fc.weight"] = state["fc.weight"].T
    with pytest.raises(UserError) as error:
        load_strict(model, state, "FILE")
    for part in ("missing (1): layer1.0.bn1.weight", "unexpected (1): extra", "fc.weight: [512, 2] in the file"):
        assert part in str(error.value)
    assert torch.equal(model.conv1.weight, before)


@pytest.fixture(scope="module")
def lite0() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    return build_model("tf_efficientnet_lite0", 1000), read_weights(Path(packaged_lite0_file()))


def test_packaged_weights_map_tensor_by_tensor(lite0: tuple[torch.nn.Module, dict[str, torch.Tensor]]) -> None:
    model, state = lite0
    renamed = from_lukemelas(state, model, "package")
    load_strict(model, renamed, "package")
    assert len(renamed) == len(state) == 296
    for (theirs, tensor), (ours, own) in zip(state.items(), model.state_dict().items(), strict=True):
        assert efficientnet_names(model)[theirs] == ours
        assert torch.equal(tensor, own)


@pytest.mark.parametrize("fault", ["swapped", "renamed", "missing", "extra", "transposed"])
def test_a_wrong_map_fails_and_never_half_loads(
    lite0: tuple[torch.nn.Module, dict[str, torch.Tensor]], fault: str
) -> None:
    model, good = lite0
    state = dict(good)
    names = list(state)
    if fault == "swapped":  # two tensors of one shape change places: shapes alone cannot tell
        order = [names[1] if n == names[2] else names[2] if n == names[1] else n for n in names]
        state = {name: state[name] for name in order}
    elif fault == "renamed":
        state = {("_bn9" + n[4:] if n.startswith("_bn0") else n): t for n, t in state.items()}
    elif fault == "missing":
        del state["_blocks.3._bn1.bias"]
    elif fault == "extra":
        state["_surprise.weight"] = torch.zeros(1)
    else:
        state["_fc.weight"] = state["_fc.weight"].T
    with pytest.raises(UserError):
        from_lukemelas(state, model, "package")


# --- freezing by name


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
