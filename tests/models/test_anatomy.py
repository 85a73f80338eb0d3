"""Heads and last norms, found in every kind of network by what they are."""

from __future__ import annotations

import pytest
import torch

from fixres.models.anatomy import head_names, last_norms
from fixres.models.build import build_model
from fixres.models.moves import make_plan
from fixres.models.sizes import gmacs

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


@pytest.mark.parametrize("name", ["resnetv2_50d_evos", "resnetv2_50d_frn", "convnext_zepto_rms"])
def test_rarer_norms_are_norms_too(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, 2)
    assert [norm.rpartition(".")[2] for norm in last_norms(model, 64)] == ["norm"]
