"""What a network begins with: whole layers in their order, no more of the weights than asked for."""

from __future__ import annotations

import pytest
from torch import nn

from fixres.models.anatomy import head_names, is_inside
from fixres.models.build import build_model
from fixres.models.first_part import first_part
from fixres.models.moves import make_plan, matching

NETWORKS = (
    "tf_efficientnet_lite0",
    "resnet18",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "resnet18_cifar",
    "test_resnet",
)


def test_it_is_the_stem_and_the_first_stages() -> None:
    assert first_part(build_model("resnet18", 2), 0.25) == ("conv1", "bn1", "layer1", "layer2", "layer3")
    blocks = [f"blocks.{number}" for number in range(5)]
    assert first_part(build_model("tf_efficientnet_lite0", 2), 0.25) == ("conv_stem", "bn1", *blocks)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_holds_at_most_its_share_and_the_rest_trains(name: str) -> None:
    model = build_model(name, 2)
    found = first_part(model, 0.25)
    weights = {key: p.numel() for key, p in model.named_parameters() if not is_inside(key, head_names(model))}
    frozen = matching(weights, found)
    assert 0 < sum(weights[key] for key in frozen) <= 0.25 * sum(weights.values())
    plan = make_plan(model, "all", 224, found)
    assert {key for key, _ in model.named_parameters()} - set(plan.trained) == set(frozen)
    assert len(first_part(model, 0.5)) >= len(found)
    assert first_part(model, 0.0) == ()


def test_there_is_none_where_no_order_of_the_layers_is_known() -> None:
    assert first_part(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), 0.5) == ()
