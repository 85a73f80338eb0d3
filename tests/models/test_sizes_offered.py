"""The sizes on offer are those the network takes, and the matching one is among them."""

from __future__ import annotations

import pytest
import torch

from fixres.config.loading import validate
from fixres.models.build import build_model
from fixres.models.sizes import offer_sizes, offer_train_size
from fixres.resolution import Preprocess


@pytest.mark.parametrize(
    ("name", "size", "sizes", "matching"),
    [
        ("test_resnet", 224, (224, 256, 288, 320, 384, 448), 288),
        ("test_resnet", 64, (64, 96, 128), 96),
        ("test_vit", 160, (160, 192, 224, 256, 288, 320), 192),
        ("vit_small_patch14_dinov2", 224, (224, 238, 280, 322, 364, 406, 448), 280),
        ("vit_small_patch14_dinov2", 518, (518, 532, 630, 644, 728, 826, 924, 1022), 644),
        ("pit_ti_224", 224, (224,), 224),
        # Of every 32 px up to its double it takes none but itself.
        ("halonet26t", 256, (256, 512), 512),
    ],
)
def test_sizes_are_multiples_of_what_the_network_takes_and_the_matching_one_is_among_them(
    name: str, size: int, sizes: tuple[int, ...], matching: int
) -> None:
    stage = validate({"data": {"uri": "synthetic:classes=2"}}).train
    # Only shapes matter, and without values they are there at once.
    with torch.device("meta"):
        model = build_model(name, 2, {"img_size": size} if "vit" in name else {})
    offer = offer_sizes(model, Preprocess(size), stage)
    assert (offer.sizes, offer.matching) == (sizes, matching)
    assert offer.exact == pytest.approx(size * 1.235, rel=1e-2)


def test_no_size_is_added_where_objects_look_as_large_already() -> None:
    stage = validate({"data": {"uri": "synthetic:classes=2"}, "train": {"crop_scale": [0.7, 0.8]}}).train
    offer = offer_sizes(build_model("test_resnet", 2), Preprocess(224, crop_ratio=0.9), stage)
    assert 224 < offer.exact < 235
    assert (offer.sizes, offer.matching) == ((224, 256, 320, 384, 448), 224)


@pytest.mark.parametrize(
    ("name", "serve", "train"),
    [
        ("test_resnet", 288, 224),
        ("test_resnet", 128, 96),
        ("vit_small_patch14_dinov2", 280, 224),
        ("pit_ti_224", 224, 224),
    ],
)
def test_the_train_size_for_a_serve_size_is_the_inverse_and_never_above_it(name: str, serve: int, train: int) -> None:
    stage = validate({"data": {"uri": "synthetic:classes=2"}}).train
    with torch.device("meta"):
        model = build_model(name, 2, {"img_size": serve} if "vit" in name else {})
    exact, size = offer_train_size(model, Preprocess(serve), stage)
    assert size == train
    assert exact == pytest.approx(serve / 1.235, rel=0.01)
