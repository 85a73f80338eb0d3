"""Networks of the four systems that timm does not have, registered under names of their own.

A folder that names one of them loads through `fixres.load`; timm alone refuses it as unknown, which is better than
computing something else.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.pnasnet import PNASNet5Large
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

_IMAGENET = {"num_classes": 1000, "classifier": "fc", "first_conv": "conv1", "crop_pct": 0.875}
_IMAGENET |= {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bilinear"}
_CIFAR = {"num_classes": 10, "classifier": "fc", "first_conv": "conv1", "input_size": (3, 32, 32), "pool_size": (4, 4)}
_CIFAR |= {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010), "crop_pct": 1.0}
_CIFAR |= {"interpolation": "bilinear"}
_CIFAR_DEPTHS: dict[int, tuple[type[nn.Module], list[int]]] = {
    18: (BasicBlock, [2, 2, 2, 2]),
    34: (BasicBlock, [3, 4, 6, 3]),
    50: (Bottleneck, [3, 4, 6, 3]),
    101: (Bottleneck, [3, 4, 23, 3]),
    152: (Bottleneck, [3, 8, 36, 3]),
}

default_cfgs = generate_default_cfgs(
    {
        "resnext101_32x48d.fb_wsl_ig1b_ft_in1k": {
            **_IMAGENET,
            "url": "https://download.pytorch.org/models/ig_resnext101_32x48-3e41cc8a.pth",
            "license": "cc-by-nc-4.0",
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
        },
        "pnasnet5large_fixres.untrained": {
            "num_classes": 1000,
            "classifier": "last_linear",
            "first_conv": "conv_0.conv",
            "input_size": (3, 331, 331),
            "pool_size": (11, 11),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
        },
        **{f"resnet{depth}_cifar.untrained": _CIFAR for depth in _CIFAR_DEPTHS},
    }
)
OWN_ARCHITECTURES = frozenset(name.split(".")[0] for name in default_cfgs)
"""Names that timm alone does not know."""


def _register_cifar(depth: int) -> None:
    name = f"resnet{depth}_cifar"
    block, layers = _CIFAR_DEPTHS[depth]

    def create(pretrained: bool = False, **kwargs: Any) -> ResNet:
        """Return a ResNet for small pictures: a 3x3 stem of stride 1, no max-pool, global pooling; any input size."""
        model = build_model_with_cfg(ResNet, name, pretrained, block=block, layers=layers, **kwargs)
        stem = nn.Conv2d(model.conv1.in_channels, model.conv1.out_channels, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        model.conv1, model.maxpool = stem, nn.Identity()
        for info in model.feature_info:
            info["reduction"] = max(1, info["reduction"] // 4)
        return model

    create.__name__ = name
    register_model(create)


for _depth in _CIFAR_DEPTHS:
    _register_cifar(_depth)


@register_model  # type: ignore[untyped-decorator]
def resnext101_32x48d(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Return the ResNeXt-101 32x48d of the FixRes headline: 828,411,176 parameters for 1,000 classes."""
    arguments = {"block": Bottleneck, "layers": [3, 4, 23, 3], "cardinality": 32, "base_width": 48}
    return build_model_with_cfg(ResNet, "resnext101_32x48d", pretrained, **arguments, **kwargs)


class _ShiftedConv2d(nn.Conv2d):
    """A convolution whose padding of k // 2 is one less on the top and left, as TensorFlow's on even inputs."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `[B, C', H // 2, W // 2]` of an even `[B, C, H, W]` at stride 2."""
        before, after = self.kernel_size[0] // 2 - 1, self.kernel_size[0] // 2
        padded = F.pad(input, (before, after, before, after))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class _ShiftedMaxPool2d(nn.Module):
    """A 3x3 max-pool of stride 2 padded on the bottom and right only."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `[B, C, H // 2, W // 2]` of an even `[B, C, H, W]`."""
        return F.max_pool2d(F.pad(input, (0, 1, 0, 1), value=float("-inf")), 3, stride=2)


@register_model  # type: ignore[untyped-decorator]
def pnasnet5large_fixres(pretrained: bool = False, **kwargs: Any) -> PNASNet5Large:
    """Return PNASNet-5-Large with the padding of the network FixRes was measured with.

    timm pads every reduction like TensorFlow: more on the bottom and right when the input is even. The network behind
    the published FixRes figures pads by k // 2 on all sides, except in `cell_4`, the one reduction whose input is even
    at 331 px. The two are therefore equal at 331 and differ at 224, 320, 384 and 480. Where an input of `cell_4` is
    odd this network cannot run.
    """
    model = build_model_with_cfg(
        PNASNet5Large, "pnasnet5large_fixres", pretrained, feature_cfg={"feature_cls": "hook"}, pad_type="", **kwargs
    )
    for name in ("comb_iter_0_left", "comb_iter_1_left", "comb_iter_2_left", "comb_iter_2_right", "comb_iter_4_left"):
        separable = getattr(model.cell_4, name).separable_1
        separable.depthwise_conv2d = _shifted(separable.depthwise_conv2d)
    for name in ("comb_iter_0_right", "comb_iter_1_right", "comb_iter_3_right"):
        setattr(model.cell_4, name, _ShiftedMaxPool2d())
    return model


def _shifted(conv: nn.Conv2d) -> _ShiftedConv2d:
    (kernel, _), (stride, _) = conv.kernel_size, conv.stride
    shifted = _ShiftedConv2d(
        conv.in_channels, conv.out_channels, kernel, stride, groups=conv.groups, bias=conv.bias is not None
    )
    shifted.load_state_dict(conv.state_dict())
    return shifted
