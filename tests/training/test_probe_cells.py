"""Which cells are offered, which are out of the running, and which is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from fixres.errors import UserError
from fixres.models.build import build_model
from fixres.models.small_networks import PretrainedNetwork
from fixres.resolution import Preprocess
from fixres.training.probe_cells import Cell, Row, choose, hopeless, offer_cells

NETWORK = PretrainedNetwork("test_resnet", "none")
BASE = np.random.default_rng(0).exponential(size=400)
NOISE = np.random.default_rng(1).standard_normal(400)
NOISE -= NOISE.mean()


def row(gmacs: float, more: float, noise: float = 0.1, n: int = 400) -> Row:
    losses = (BASE + more + noise * NOISE)[:n]
    size = round(1000 * gmacs)
    cell = Cell(NETWORK, Preprocess(size), gmacs, size)
    return Row(cell, "measured", how="cross-validated", n=n, top1=90.0, loss=float(losses.mean()), losses=losses)


def test_a_network_takes_the_nearest_size_it_can_and_nothing_is_measured_twice() -> None:
    squashed = Preprocess(224, resize="squash")
    patches = PretrainedNetwork("vit_tiny_patch16_224", "none")
    networks = {patches: (build_model(patches.name, 2), squashed)}
    cells = offer_cells(networks, (94, 96, 130), (0.875, 1.0))
    assert [(cell.size, cell.preprocess.crop_ratio) for cell in cells] == [(128, 0.875), (96, 0.875)]


def test_smaller_sizes_than_the_first_product_s_come_last() -> None:
    networks = {NETWORK: (build_model(NETWORK.name, 2), Preprocess(224))}
    assert [cell.size for cell in offer_cells(networks, (64, 96, 128, 160, 224), (0.875,))] == [128, 160, 224, 64, 96]


def test_a_first_size_of_one_s_own_runs_first() -> None:
    networks = {NETWORK: (build_model(NETWORK.name, 2), Preprocess(224))}
    assert [cell.size for cell in offer_cells(networks, (96, 128, 160), (0.875,), 96)] == [96, 128, 160]


def test_a_network_of_patches_runs_beside_the_others_at_the_size_that_was_wanted() -> None:
    patches = PretrainedNetwork("test_vit", "none")
    networks = {net: (build_model(net.name, 2), Preprocess(160)) for net in (NETWORK, patches)}
    found = [(cell.wanted, cell.network.name, cell.size) for cell in offer_cells(networks, (128, 150), (0.875,))]
    small = [(128, "test_vit", 128), (128, "test_resnet", 128)]
    assert found == [*small, (150, "test_vit", 144), (150, "test_resnet", 150)]


def test_a_size_that_a_network_cannot_come_near_is_left_out() -> None:
    # It resizes every picture to 240 px itself.
    one_size = PretrainedNetwork("crossvit_tiny_240", "none")
    networks = {one_size: (build_model(one_size.name, 2), Preprocess(240))}
    assert [cell.size for cell in offer_cells(networks, (96, 128, 224), (0.875,))] == [240]
    with pytest.raises(UserError, match="cannot take 96 px"):
        offer_cells(networks, (64, 96), (0.875,))


def test_out_of_the_running_is_what_something_no_dearer_clearly_beats() -> None:
    cheap, dear, best = row(0.1, 0.3), row(0.2, 0.303, noise=0.2), row(0.3, 0.29, noise=-0.1)
    assert "no dearer and better" in hopeless(row(0.2, 0.4), [cheap])
    assert hopeless(dear, [cheap]) == ""
    assert hopeless(cheap, [cheap, dear, best]) == ""
    assert "more than two standard errors" in hopeless(cheap, [row(0.3, 0.2)])
    assert hopeless(row(0.2, 0.4, n=200), [cheap]) == "", "they saw other pictures"


def test_the_cheapest_within_one_error_is_named_beside_the_best() -> None:
    cheap, best = row(0.1, 0.001), row(0.2, 0.0, noise=-0.1)
    found = choose([best, cheap, row(0.05, 0.5)])
    assert (found.best, found.cheapest) == (best, cheap)
    assert "the least of all; within one standard error of it at 0.50 of its work: test_resnet at 100 px" in found.why
    alone = choose([best])
    assert alone.cheapest is best
    assert alone.why.endswith("the least of all")
