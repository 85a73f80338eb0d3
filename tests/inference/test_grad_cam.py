"""Grad-CAM on networks whose answer is known, and on every layout a network keeps its places in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fixres.checkpoints.product import Product
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.inference.grad_cam import Explainer, find_layer, grad_cam, overlay, sights
from fixres.models.anatomy import head_names
from fixres.models.build import build_model
from fixres.models.sizes import at_size
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime

pytest.importorskip("captum")

QUADRANTS = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}


def part(images: Tensor, quadrant: tuple[int, int]) -> Tensor:
    """Return the pictures with everything outside a quadrant black."""
    half = images.shape[-1] // 2
    rows, columns = (slice(half * place, half * (place + 1)) for place in quadrant)
    kept = torch.zeros_like(images)
    kept[..., rows, columns] = images[..., rows, columns]
    return kept


class LooksAtOneQuadrant(nn.Module):
    """Class 1 is how bright a quadrant is; nothing else matters. The places lie as `layout` says."""

    def __init__(self, quadrant: tuple[int, int], layout: str) -> None:
        super().__init__()
        self.quadrant, self.layout = quadrant, layout
        self.stem = nn.Conv2d(3, 4, 4, stride=4, bias=False)
        self.act = nn.ReLU(inplace=True)
        self.norm = nn.Identity()
        self.head = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.stem.weight.fill_(0.1)
            self.head.weight.copy_(torch.tensor([[-1.0] * 4, [1.0] * 4]))

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, images: Tensor) -> Tensor:
        seen = self.act(self.stem(part(images, self.quadrant)))
        if self.layout == "NCHW":
            return self.head(self.norm(seen).mean((2, 3)))
        if self.layout == "NHWC":
            return self.head(self.norm(seen.permute(0, 2, 3, 1)).mean((1, 2)))
        tokens = torch.cat([torch.zeros(len(seen), 1, 4), seen.flatten(2).transpose(1, 2)], 1)
        return self.head(self.norm(tokens)[:, 1:].mean(1))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "tokens"])
@pytest.mark.parametrize("quadrant", QUADRANTS.values(), ids=QUADRANTS)
def test_the_heat_is_where_the_network_looks(layout: str, quadrant: tuple[int, int]) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32) + 0.5
    heat, layer = grad_cam(LooksAtOneQuadrant(quadrant, layout), images, [1, 1])
    assert (layer.name, layer.layout) == ("norm", layout)
    assert heat.shape == (2, 32, 32)
    assert part(heat, quadrant).sum() / heat.sum() > 0.9
    assert heat.amax((1, 2)).tolist() == pytest.approx([1, 1])
    # What speaks against a class is no evidence for it.
    against, _ = grad_cam(LooksAtOneQuadrant(quadrant, layout), images, [0, 0])
    assert against.abs().max() == 0


def test_a_brighter_place_is_hotter() -> None:
    images = torch.full((1, 3, 32, 32), 0.2)
    images[:, :, 4:8, 24:28] = 2.0
    for layout in ("NCHW", "NHWC", "tokens"):
        heat, _ = grad_cam(LooksAtOneQuadrant((0, 1), layout), images, [1])
        row, column = divmod(int(heat[0].argmax()), 32)
        assert 4 <= row < 8, layout
        assert 24 <= column < 28, layout


def by_hand(model: nn.Module, name: str, image: Tensor, target: int) -> Tensor:
    """Return Grad-CAM of a layer with maps, in so many lines."""
    kept: list[Tensor] = []
    hook = model.get_submodule(name).register_forward_hook(lambda _m, _i, output: kept.append(output))
    score = model(image)[0, target]
    hook.remove()
    (gradient,) = torch.autograd.grad(score, kept)
    heat = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True).relu()
    heat = nn.functional.interpolate(heat, size=image.shape[2:], mode="bilinear")[0, 0]
    return (heat / heat.max()).detach()


@pytest.mark.parametrize(
    ("name", "layout", "expected"),
    [
        ("test_resnet", "NCHW", "layer4"),
        ("test_efficientnet", "NCHW", "bn2"),
        ("test_convnext", "NCHW", "norm_pre"),
        # After the last block only the class token is used: the places are read from its first norm.
        ("test_vit", "tokens", "blocks.5.norm1"),
        ("swin_tiny_patch4_window7_224", "NHWC", "norm"),
        ("mixer_s32_224", "tokens", "norm"),
        ("deit_tiny_distilled_patch16_224", "tokens", "blocks.11.norm1"),
    ],
)
def test_the_layer_is_the_last_with_places_that_matter(name: str, layout: str, expected: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, 5, init="timm").eval()
    size = 224 if "224" in name else 160
    image = torch.randn(1, 3, size, size)
    head = model.get_submodule(head_names(model)[0])
    # timm's random heads are nearly, some of them exactly, zero.
    nn.init.normal_(head.weight, std=0.1)
    nn.init.zeros_(head.bias)
    with torch.no_grad():
        # One of two opposite classes has evidence for it.
        head.weight[1] = -head.weight[0]
        best = int(model(image).argmax())
    heat, layer = grad_cam(model, image, [best])
    assert (layer.name, layer.layout) == (expected, layout)
    assert heat.shape == (1, size, size)
    assert float(heat.min()) >= 0
    assert float(heat.max()) == pytest.approx(1)
    if layout == "NCHW":
        assert torch.allclose(heat[0], by_hand(model, layer.name, image.requires_grad_(True), best), atol=1e-5)
    assert not model.training


def test_nothing_of_the_network_is_changed() -> None:
    model = build_model("test_resnet", 3)
    model.train()
    model.bn1.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    grad_cam(model, torch.randn(1, 3, 64, 64), [0])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_cold_place_keeps_its_pixels_and_a_hot_one_does_not() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    heat = np.zeros((8, 8), np.float32)
    heat[0, 0] = 1
    seen = overlay(pixels, heat)
    assert np.array_equal(seen[1:], pixels[1:])
    assert not np.array_equal(seen[0, 0], pixels[0, 0])


def test_both_sizes_stand_side_by_side() -> None:
    torch.manual_seed(0)
    model = build_model("test_vit", 4, init="timm").eval()
    model = at_size(model, 96)
    product = Product(model, "test_vit", ("a", "b", "c", "d"), Preprocess(96), 64, "raw", {}, True, {}, "memory")
    seen = sights(product)
    assert [(sight.preprocess.size, title) for title, sight in seen] == [
        (64, "train size, 64 px"),
        (96, "test size, 96 px"),
    ]
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 90, 3), dtype=np.uint8))
    runtime = Runtime(RuntimeSettings(device="cpu", threads=1))
    both = Explainer(seen, runtime)(picture, 1)
    one = Explainer(seen[1:], runtime)(picture, 1)
    assert both.width > 1.8 * one.width
    assert both.height == one.height
    assert len(sights(product.at(64))) == 1


def test_a_network_without_places_says_so() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 2))
    with pytest.raises(Exception, match="no layer with places"), torch.enable_grad():
        find_layer(model, torch.zeros(1, 3, 4, 4, requires_grad=True), 0)
