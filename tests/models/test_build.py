"""Networks are built as they are named, start as they are told, and are loaded strictly or not at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models

from fixres.errors import UserError
from fixres.models.build import RandomValuesLeftOut, build_model, build_shape, default_size, load_strict
from fixres.models.names import bare
from tests.support.networks import scramble


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown model 'resnett50' - did you mean 'resnet"):
        build_model("resnett50", 2)


def test_arguments_the_network_does_not_take_are_an_error() -> None:
    with pytest.raises(UserError, match=r"model\.kwargs"):
        build_model("resnet18", 2, {"drop_pth_rate": 0.1})


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


RESNEXTS = {"resnetxt50_32x4d": 25_028_904, "resnetxt101_32x8d": 88_791_336, "resnetxt101_64x4d": 83_455_272}


@pytest.mark.parametrize("alias", RESNEXTS)
def test_resnext_has_the_published_number_of_parameters(alias: str) -> None:
    with torch.device("meta"):
        model = build_model(alias, 1000)
    assert sum(p.numel() for p in model.parameters()) == RESNEXTS[alias]


@pytest.mark.parametrize(
    "alias", [alias if "101" not in alias else pytest.param(alias, marks=pytest.mark.system) for alias in RESNEXTS]
)
def test_resnext_equals_torchvision_bit_for_bit(alias: str) -> None:
    theirs = scramble(getattr(torchvision_models, bare(alias))(num_classes=10))
    ours = build_model(alias, 10, init="torch")
    ours.load_state_dict(theirs.state_dict())
    for size in (224, 160):
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))
        with torch.inference_mode():
            assert torch.equal(ours.eval()(images), theirs.eval()(images))
            assert torch.equal(ours.requires_grad_(True).train(True)(images), theirs.train(True)(images))
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_resnext_gradients_equal_torchvisions() -> None:
    theirs = scramble(torchvision_models.resnext50_32x4d(num_classes=10))
    ours = build_model("resnetxt50_32x4d", 10)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for model in (ours, theirs):
        model.train(True)
        nn.functional.cross_entropy(model(images), torch.tensor([1, 2]), label_smoothing=0.1).backward()
    pairs = zip(ours.named_parameters(), theirs.named_parameters(), strict=True)
    assert all(name == other and torch.equal(p.grad, q.grad) for (name, p), (other, q) in pairs)


@pytest.mark.parametrize("init", ["timm", "torch", "kaiming_fan_out"])
@pytest.mark.parametrize("zero", [True, False])
def test_residual_start_is_an_option(init: str, zero: bool) -> None:
    model = build_model("resnext50_32x4d", 3, init=init, zero_init_last=zero)
    last = [m.bn3.weight for m in model.modules() if hasattr(m, "bn3")]
    other = [m.bn2.weight for m in model.modules() if hasattr(m, "bn2")]
    assert len(last) == 16
    assert all(weight.eq(0 if zero else 1).all() for weight in last)
    assert all(weight.eq(1).all() for weight in other)


def test_residual_start_is_refused_where_there_is_none() -> None:
    with pytest.raises(UserError, match="no residual blocks"):
        build_model("vgg11", 3, zero_init_last=True)


@pytest.mark.parametrize(
    "name", ["resnet18", "levit_128s", "vit_tiny_patch16_224", "test_convnext", "eva02_tiny_patch14_224"]
)
def test_a_network_whose_values_are_loaded_is_built_without_drawing_any(name: str) -> None:
    torch.manual_seed(0)
    drawn = build_model(name, 3)
    state = torch.get_rng_state()
    with RandomValuesLeftOut():
        empty = build_model(name, 3)
    assert torch.equal(torch.get_rng_state(), state)
    load_strict(empty, drawn.state_dict(), "the other")
    for (key, one), (_, other) in zip(drawn.named_buffers(), empty.named_buffers(), strict=True):
        assert torch.equal(one, other), key
    images = torch.randn(1, 3, default_size(drawn), default_size(drawn))
    with torch.inference_mode():
        assert torch.equal(drawn.eval()(images), empty.eval()(images))


def test_random_values_are_left_out_only_where_that_is_asked_for() -> None:
    with RandomValuesLeftOut(False):
        model = build_model("test_resnet", 3)
    assert all(layer.weight.std() > 0 for layer in model.modules() if isinstance(layer, nn.Conv2d))


def test_a_shape_has_every_tensor_and_no_value() -> None:
    shape, model = build_shape("test_vit", 7), build_model("test_vit", 7)
    assert {k: v.shape for k, v in shape.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert all(parameter.is_meta for parameter in shape.parameters())
