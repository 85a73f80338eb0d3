"""The names users of the four systems type."""

from __future__ import annotations

import pytest
import timm

from fixres.errors import UserError
from fixres.models.names import ALIASES, canonical

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
