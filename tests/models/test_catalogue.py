"""What is said about an architecture, and which of them a pattern finds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fixres.errors import UserError
from fixres.models.anatomy import last_norms
from fixres.models.build import build_model
from fixres.models.catalogue import describe_architecture, search_architectures, size_rule
from fixres.models.moves import make_plan
from fixres.models.pretrained import published_classes
from fixres.models.sizes import gmacs

CASES = {
    # name: (sizes, head, number and type of the last norms, moves)
    "resnet18_cifar": ("any", ("fc",), (1, "BatchNorm2d"), "head+stats"),
    "test_resnet": ("any", ("fc",), (2, "BatchNorm2d"), "head+stats"),
    "resnext50_32x4d": ("any", ("fc",), (1, "BatchNorm2d"), "head+stats"),
    "inception_v3": ("any from 75", ("fc",), (6, "BatchNormAct2d"), "head+stats"),
    "vgg11": ("any", ("head.fc",), (0, ""), "head"),
    "convnext_atto": ("any", ("head.fc",), (1, "LayerNorm2d"), "head"),
    "test_vit": ("multiples of 16, positions resized", ("head",), (1, "LayerNorm"), "head"),
    "eva02_tiny_patch14_224": ("multiples of 14 from 42, positions resized", ("head",), (1, "LayerNorm"), "head"),
    "mixer_s32_224": ("224 only (", ("head",), (1, "LayerNorm"), "head"),
    "crossvit_9_240": ("240 only (it resizes every picture", ("head.0", "head.1"), (2, "LayerNorm"), "head"),
    "levit_128s": ("209 to 224 (", ("head", "head_dist"), (2, "BatchNorm1d"), "head+stats"),
    "mvitv2_tiny": ("32 to 224 (index", ("head.fc",), (1, "LayerNorm"), "head"),
    "deit_tiny_distilled_patch16_224": (
        "multiples of 16, positions resized",
        ("head", "head_dist"),
        (1, "LayerNorm"),
        "head",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_architecture_is_described_as_it_is(name: str) -> None:
    sizes, head, (num_norms, kind), moves = CASES[name]
    entry = describe_architecture(name)
    assert entry.sizes == sizes or (sizes.endswith(("(", "picture", "index")) and entry.sizes.startswith(sizes))
    assert (entry.head, entry.moves) == (head, moves)
    assert len(entry.last_norms) == num_norms
    assert {found for _, found in entry.last_norms} == ({kind} if kind else set())


@pytest.mark.parametrize(
    "name", ["resnet18", "test_vit", "convnext_atto", "levit_128s", "tf_efficientnet_lite0", "cait_xxs24_224"]
)
def test_a_network_without_values_is_the_network(name: str) -> None:
    entry = describe_architecture(name)
    model = build_model(name, published_classes(name))
    assert entry.num_parameters == sum(p.numel() for p in model.parameters())
    assert entry.gmacs == gmacs(model, entry.test_size)
    assert tuple(norm for norm, _ in entry.last_norms) == last_norms(model, entry.train_size)
    assert entry.moves == make_plan(model, "auto", entry.train_size).moves


def test_the_largest_network_costs_nothing() -> None:
    entry = describe_architecture("IGAM_Resnext101_32x48d")
    assert entry.num_parameters == 828_411_176
    assert entry.gmacs == pytest.approx(153.3, abs=0.1)
    assert {"IGAM_Resnext101_32x48d", "resnext101_32x48d_wsl"} <= set(entry.aliases)
    assert entry.weights[:2] == ("url download.pytorch.org", "fixres:FixResNeXt101_32x48d")


def test_a_network_without_logits_cannot_be_trained() -> None:
    entry = describe_architecture("gemma4_vit_167m_enc")
    assert (entry.head, entry.moves, entry.gmacs) == ((), "", None)
    assert entry.sizes.startswith("none (the output is not one row of logits")
    assert entry.reason.startswith("it cannot be trained")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("resnet18", ["resnet18"]),
        ("RESNET18", ["resnet18"]),
        ("resnet18_c", ["resnet18_cifar"]),
        ("?esnet1[05]2_cifar", ["resnet152_cifar"]),
        ("resnet5*_CIFAR", ["resnet50_cifar"]),
        ("pnasnet", ["pnasnet5large_fixres"]),
        ("ResNet50", ["resnet50.tv_in1k"]),
        ("EfficientNet-B0-AdvProp", ["tf_efficientnet_b0.ap_in1k"]),
        ("resnet18.a1_in1k", ["resnet18.a1_in1k"]),
        ("resnet18.tv*", ["resnet18.tv_in1k"]),
    ],
)
def test_patterns_find(pattern: str, found: list[str]) -> None:
    assert search_architectures(pattern) == found


def test_names_are_sorted_by_their_numbers() -> None:
    assert search_architectures("resnet*_cifar") == [f"resnet{depth}_cifar" for depth in (18, 34, 50, 101, 152)]


def test_a_near_miss_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'pnasnet5large'"):
        search_architectures("pnasnet5larje")


class Picky(nn.Module):
    """A network that takes the sizes it is told to."""

    def __init__(self, takes: Callable[[int], bool]) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.takes = takes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.takes(images.shape[-1]):
            raise ValueError("not this one\nsecond line")
        return self.fc(images.mean((2, 3)))


@pytest.mark.parametrize(
    ("takes", "size", "rule"),
    [
        (lambda size: True, 224, "any"),
        (lambda size: size >= 75, 299, "any from 75"),
        (lambda size: size % 2 == 0, 224, "multiples of 2"),
        (lambda size: size % 32 == 0 and size >= 96, 224, "multiples of 32 from 96"),
        (lambda size: size % 16 in (0, 1, 2, 11), 331, "multiples of 16, and 331"),
        (lambda size: size == 224, 224, "224 only (not this one)"),
        (lambda size: 209 <= size <= 224, 224, "209 to 224 (not this one)"),
        (lambda size: 224 <= size < 400, 224, "224 to 399 (not this one)"),
        (lambda size: size != 224, 224, "none (not this one)"),
    ],
)
def test_the_rule_about_sizes(takes: Callable[[int], bool], size: int, rule: str) -> None:
    assert size_rule(Picky(takes), size) == rule
