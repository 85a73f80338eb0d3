"""The sizes a network takes, and the work each costs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fixres.errors import UserError
from fixres.models.anatomy import last_norms
from fixres.models.build import build_model, load_strict
from fixres.models.sizes import at_size, bound_size, gmacs, probe


def test_work_is_counted_in_multiply_adds() -> None:
    assert gmacs(build_model("resnet50", 1000), 224) == pytest.approx(4.1, abs=0.05)


def test_a_convolutional_network_takes_other_sizes_as_it_is() -> None:
    model = build_model("resnet18", 2)
    assert at_size(model, 96) is model


def test_a_size_that_a_network_took_is_not_tried_again_until_its_shapes_change() -> None:
    model = build_model("resnet18", 2)
    passes: list[object] = []
    model.register_forward_pre_hook(lambda *_: passes.append(None))
    for _ in range(3):
        assert at_size(model, 96) is model
    assert len(passes) == 1
    model.reset_classifier(3)
    at_size(model, 96)
    at_size(model, 64)
    assert len(passes) == 3


@pytest.mark.parametrize("name", ["test_resnet", "tf_efficientnet_lite0", "mobilenetv3_small_100", "test_vit"])
def test_work_counted_without_values_is_that_of_a_pass_with_values(name: str) -> None:
    model = build_model(name, 2).eval()
    size = bound_size(model) or 64
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, 3, size, size))
    assert gmacs(model, size) == counter.get_total_flops() / 2e9


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
