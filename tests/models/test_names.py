"""The names users of the four systems type, and the networks behind them."""

from __future__ import annotations

import pytest
import timm
import torch
from pretrainedmodels.models.pnasnet import PNASNet5Large
from torch import nn
from torchvision import models as torchvision_models

from fixres.errors import UserError
from fixres.models.anatomy import head_names, last_norms
from fixres.models.build import build_model, load_strict
from fixres.models.names import ALIASES, bare, canonical
from fixres.models.sizes import at_size

NAMES = {
    "ResNet50": "resnet50.tv_in1k",
    "resnetxt50_32x4d": "resnext50_32x4d.tv_in1k",
    "resnetxt101_32x8d": "resnext101_32x8d.tv_in1k",
    "resnetxt101_64x4d": "resnext101_64x4d.tv_in1k",
    "IGAM_Resnext101_32x48d": "resnext101_32x48d.fb_wsl_ig1b_ft_in1k",
    "igam-resnext101-32x8d": "resnext101_32x8d.fb_wsl_ig1b_ft_in1k",
    "PNASNet": "pnasnet5large_fixres",
    "SENet-154": "legacy_senet154.in1k",
    "InceptionResNetV2": "inception_resnet_v2.tf_in1k",
    "EfficientNet-B0": "tf_efficientnet_b0.in1k",
    "efficientnet-b7": "tf_efficientnet_b7.aa_in1k",
    "EfficientNet-B8": "tf_efficientnet_b8.ra_in1k",
    "EfficientNet_B4_AdvProp": "tf_efficientnet_b4.ap_in1k",
    "EfficientNet-B5-NoisyStudent": "tf_efficientnet_b5.ns_jft_in1k",
    "EfficientNet-L2": "tf_efficientnet_l2.ns_jft_in1k",
    "FixEfficientNet_L2": "tf_efficientnet_l2.ns_jft_in1k_475",
    "fixEfficientNet_b0_ns": "tf_efficientnet_b0.ns_jft_in1k",
    "tf_efficientnet_b0_ap": "tf_efficientnet_b0.ap_in1k",
    "tf_efficientnet_l2_ns_475": "tf_efficientnet_l2.ns_jft_in1k_475",
    "resnet18_cifar": "resnet18_cifar",
    "efficientnet_b0": "efficientnet_b0",
    "resnet50.a1_in1k": "resnet50.a1_in1k",
}


@pytest.mark.parametrize("given", NAMES)
def test_names_of_the_four_systems(given: str) -> None:
    assert canonical(given) == NAMES[given]
    assert canonical(canonical(given)) == canonical(given)


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_names_a_network_with_a_configuration(alias: str) -> None:
    cfg = timm.models.get_pretrained_cfg(canonical(alias))
    assert cfg is not None
    assert cfg.num_classes == 1000


@pytest.mark.parametrize("width", [*(f"b{i}" for i in range(9)), "l2"])
@pytest.mark.parametrize("variant", ["", "-AdvProp", "-NoisyStudent"])
def test_every_efficientnet_of_the_note_can_be_named(width: str, variant: str) -> None:
    unpublished = {("l2", "-AdvProp"), ("b8", "-NoisyStudent")}
    name = f"EfficientNet-{width}{variant}"
    if (width, variant) in unpublished:
        with pytest.raises(UserError, match="unknown model"):
            canonical(name)
        return
    cfg = timm.models.get_pretrained_cfg(canonical(name))
    assert cfg.has_weights
    # AdvProp networks are fed with 0.5, the others with ImageNet's statistics (b8's RandAugment too).
    assert (cfg.mean == (0.5, 0.5, 0.5)) is (variant == "-AdvProp")


@pytest.mark.parametrize("given", ["resnet5O", "EfficientNet-B9", "", "48d", "../resnet18", "PNASNet-6-Huge"])
def test_unknown_names_are_refused(given: str) -> None:
    with pytest.raises(UserError, match=r"unknown model .*\n  1,\d+ architectures: fixres models"):
        canonical(given)


def scramble(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor values that tell a wrong one from a right one, statistics of BatchNorm included."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.05, generator=generator)
    return model


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
