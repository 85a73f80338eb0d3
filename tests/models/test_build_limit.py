"""What a file describes is built as far as its weights can fill it, and everything else as before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fixres.errors import UserError
from fixres.models import build_limit
from fixres.models.build import build_model, load_strict
from fixres.models.build_limit import build_for


def weights(name: str, **kwargs: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_model(name, 3, kwargs).state_dict()


@pytest.fixture
def counted() -> Iterator[list[int]]:
    """How many modules were put into another."""
    parts = [0]

    def count(*_: Any) -> None:
        parts[0] += 1

    handle = nn.modules.module.register_module_module_registration_hook(count)
    yield parts
    handle.remove()


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("test_resnet", {"layers": [1, 1, 1, 90_000]}),
        ("test_resnet", {"channels": [20_000] * 4}),
        ("test_vit", {"depth": 50_000}),
        ("test_vit", {"embed_dim": 90_000, "num_heads": 1}),
        ("test_vit", {"mlp_ratio": 1e12}),
        ("test_vit", {"img_size": 90_000}),
        ("test_convnext", {"depths": [90_000, 1, 1, 1]}),
        ("vit_gigantic_patch14_224", {}),
        ("vit_gigantic_patch14_224", {"qkv_bias": False}),
    ],
)
def test_a_network_that_its_weights_cannot_fill_is_not_built(
    name: str, kwargs: dict[str, Any], counted: list[int]
) -> None:
    with pytest.raises(UserError, match=r"FOLDER describes a network .* refused\n  they do not belong together"):
        build_for(weights("test_resnet"), name, 3, kwargs, "FOLDER")
    assert counted[0] < 10_000
    build_model("resnet50", 1000)


@pytest.mark.parametrize(
    "kwargs",
    [{"depth": 10**9}, {"layers": [10**4] * 11}, {"a": {"b": [-(10**9)]}}, {"depth": 10**400}],
    ids=",".join,
)
def test_numbers_that_no_network_has_are_refused_at_once(kwargs: dict[str, Any], counted: list[int]) -> None:
    state = weights("test_vit")
    counted[0] = 0
    with pytest.raises(UserError, match=r"FOLDER: the whole numbers in model_args \(.* add up to more than 100,000"):
        build_for(state, "test_vit", 3, kwargs, "FOLDER")
    assert counted == [0]


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("test_resnet", {}),
        ("test_resnet", {"layers": [1, 2, 1, 1], "drop_path_rate": 0.1}),
        ("test_vit", {"img_size": 224}),
        ("test_convnext", {"depths": [1, 1, 2, 1]}),
        ("resnet18_cifar", {"act_layer": "silu"}),
    ],
)
def test_ordinary_networks_are_built_bit_for_bit_as_without_a_limit(name: str, kwargs: dict[str, Any]) -> None:
    state = {key: tensor.half() for key, tensor in weights(name, **kwargs).items()}
    torch.manual_seed(1)
    wanted = build_model(name, 3, kwargs).state_dict()
    after = torch.rand(1)
    torch.manual_seed(1)
    found = build_for(state, name, 3, kwargs, "FOLDER")
    assert torch.equal(torch.rand(1), after)
    for key, tensor in found.state_dict().items():
        assert torch.equal(tensor, wanted[key]), key
    load_strict(found, weights(name, **kwargs), "FOLDER")


def test_arguments_that_do_not_suit_are_said_to_be_that() -> None:
    with pytest.raises(UserError, match="do not suit 'test_resnet'"):
        build_for(weights("test_resnet"), "test_resnet", 3, {"nonsense": 3}, "FOLDER")


def test_a_network_that_needs_values_is_built_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(name: str, num_classes: int, kwargs: Any) -> nn.Module:
        model = nn.Linear(2, num_classes)
        if model.weight.is_meta:
            raise UserError("a tensor on the meta device has no values")
        return model

    monkeypatch.setattr(build_limit, "build_model", build)
    state = nn.Linear(2, 3).state_dict()
    load_strict(build_for(state, "own", 3, {"some": 1}, "FOLDER"), state, "FOLDER")


def test_other_threads_build_what_they_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_limit, "FREE_BYTES", 2**20)
    state, built = nn.Linear(2, 3).state_dict(), []

    def build(name: str, num_classes: int, kwargs: Any) -> nn.Module:
        thread = threading.Thread(target=lambda: built.append(build_model("test_resnet", 1000)))
        thread.start()
        thread.join()
        return nn.Linear(2, num_classes)

    with monkeypatch.context() as patch:
        patch.setattr(build_limit, "build_model", build)
        build_for(state, "own", 3, {}, "FOLDER")
    assert len(built) == 1
    with pytest.raises(UserError, match="refused"):
        build_for(state, "test_resnet", 3, {}, "FOLDER")
