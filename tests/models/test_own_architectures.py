"""Networks that timm does not have compute what their references compute."""

from __future__ import annotations

import pytest
import torch
from pretrainedmodels.models.pnasnet import PNASNet5Large
from torch import nn
from torchvision import models as torchvision_models

from fixres.errors import UserError
from fixres.models.anatomy import head_names, last_norms
from fixres.models.build import build_model, load_strict
from fixres.models.sizes import at_size
from tests.support.networks import scramble


def test_32x48d_is_the_network_of_the_headline() -> None:
    with torch.device("meta"):
        model = build_model("IGAM_Resnext101_32x48d", 1000)
        theirs = torchvision_models.ResNet(
            torchvision_models.resnet.Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=48
        )
    assert sum(p.numel() for p in model.parameters()) == 828_411_176
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes
    assert (head_names(model), last_norms(model, 64)) == (("fc",), ("layer4.2.bn3",))


@pytest.mark.parametrize("size", [28, 31, 32, 36, 48, 64, 96])
def test_the_cifar_network_takes_any_size(size: int) -> None:
    model = build_model("resnet18_cifar", 10)
    assert model(torch.zeros(2, 3, size, size)).shape == (2, 10)


def test_the_cifar_network_is_resnet18_with_another_stem() -> None:
    ours = scramble(build_model("resnet18_cifar", 10)).eval()
    assert sum(p.numel() for p in ours.parameters()) == 11_173_962
    assert sum(p.numel() for p in build_model("resnet18_cifar", 100).parameters()) == 11_220_132
    theirs = torchvision_models.resnet18(num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs.eval()(images))
    fresh = build_model("resnet18_cifar", 10).conv1.weight
    assert fresh.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("depth", [34, 50, 101, 152])
def test_the_other_cifar_networks(depth: int) -> None:
    published = {34: 21_282_122, 50: 23_520_842, 101: 42_512_970, 152: 58_156_618}
    with torch.device("meta"):
        model = build_model(f"resnet{depth}_cifar", 10)
    assert sum(p.numel() for p in model.parameters()) == published[depth]


@pytest.fixture(scope="module")
def pnasnet() -> PNASNet5Large:
    """Return the network FixRes was measured with: its last pooling is global."""
    torch.manual_seed(0)
    model = PNASNet5Large(num_classes=1000)
    model.avg_pool = nn.AdaptiveAvgPool2d(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("size", [128, *(pytest.param(size, marks=pytest.mark.system) for size in (331, 480))])
def test_pnasnet_equals_the_reference_bit_for_bit(pnasnet: PNASNet5Large, size: int) -> None:
    ours = build_model("PNASNet", 1000).eval()
    load_strict(ours, pnasnet.state_dict(), "reference")
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = pnasnet(images)
        assert torch.equal(ours(images), expected)
        if size == 331:
            return
        # timm pads differently at all but 331 px: this comparison is able to fail.
        theirs = build_model("pnasnet5large", 1000).eval()
        load_strict(theirs, pnasnet.state_dict(), "reference")
        assert (theirs(images) - expected).abs().max() > 1e-5


def test_pnasnet_refuses_sizes_the_reference_cannot_run() -> None:
    with pytest.raises(UserError, match=r"cannot take 100 px\n  it takes .*96"):
        at_size(build_model("PNASNet", 3), 100)
