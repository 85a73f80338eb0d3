"""A network cut in front of its head gives that head what it was given before."""

from __future__ import annotations

import pytest
import torch

from fixres.models.anatomy import last_norms
from fixres.models.moves import make_plan
from fixres.models.split_trunk import cut_network, head_logits
from tests.support.solver_problems import warm

FAMILIES = ["test_resnet", "test_efficientnet", "test_vit", "test_convnext", "test_byobnet", "test_nfnet"]


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_the_networks_own(name: str) -> None:
    size = 160 if name == "test_vit" else 64
    model = warm(name, size)
    plan = make_plan(model, "auto", size)
    images = torch.randn(8, 3, size, size)
    with torch.inference_mode():
        cut = cut_network(model, plan.live_norms, images)
        assert cut.path == "folded"
        other = torch.randn(8, 3, size, size)
        logits = head_logits(model, cut.head, cut.features(other))
        wanted = model(other)
    assert float((logits - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


def test_new_statistics_reach_a_network_that_is_cut_already() -> None:
    model = warm()
    norms = last_norms(model, 48)
    images = torch.randn(4, 3, 48, 48)
    with torch.inference_mode():
        cut = cut_network(model, norms, images)
    with torch.no_grad():
        for name in norms:
            model.get_submodule(name).running_mean.add_(1.0)
    with torch.inference_mode():
        logits = head_logits(model, cut.head, cut.features(images))
        torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-4)
