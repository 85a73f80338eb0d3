"""The probe measures cells from the cheapest on, keeps to its budget, and says what it left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fixres.config.recipe import Data
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import Collection, open_collection
from fixres.data.sampling import stratified_order
from fixres.errors import Stopped, UserError
from fixres.evaluation.evaluate import Reading, evaluate, network_views
from fixres.models.build import build_model
from fixres.models.small_networks import PretrainedNetwork
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime
from fixres.training import frozen_features, probe
from fixres.training.probe import Probed, ProbeJob, select_of
from fixres.training.probe_cells import Row, collection_loader

NETS = (PretrainedNetwork("test_resnet", "none"), PretrainedNetwork("test_vit", "none"))


@pytest.fixture(scope="module")
def collection() -> Collection:
    return open_collection(Data(uri="synthetic:classes=3,images=90,size=56"))


def load(network: PretrainedNetwork) -> tuple[nn.Module, Preprocess]:
    torch.manual_seed(0)
    return build_model(network.name, 3).eval(), Preprocess(64)


def run(collection: Collection, **changes: Any) -> tuple[Probed, list[Row]]:
    told: list[Row] = []
    settings: dict[str, Any] = {
        "networks": NETS[:1],
        "split": collection.split("train"),
        "load": load,
        "runtime": Runtime(RuntimeSettings(device="cpu", threads=1)),
        "reading": Reading(16),
        "sizes": (32, 48),
        "on_row": told.append,
    }
    return probe.probe(ProbeJob(**{**settings, **changes})), told


def test_every_cell_is_measured_once_from_the_first_product_and_the_cheapest_on(collection: Collection) -> None:
    found, told = run(collection, networks=NETS)
    assert [row.cell for row in told] == [row.cell for row in found.rows]
    assert len(found.rows) == 8
    first, *rest = found.rows
    # 48 px is nearest to 128; after the first product, sizes ascend, and of one size work.
    assert first.cell.size == 48
    places = [(row.cell.size, row.cell.gmacs) for row in rest]
    assert places == sorted(places)
    for row in found.rows:
        assert (row.state, row.how, row.n) == ("measured", "cross-validated", len(collection.split("train")))
        assert row.losses is not None
        assert row.loss == pytest.approx(row.losses.mean())
    # One speed for a network and a size, however often it is measured.
    assert len({(row.cell.network, row.cell.size, row.ms) for row in found.rows}) == 4


def test_half_of_what_was_measured_at_one_size_goes_on_to_the_next(collection: Collection) -> None:
    """Also where a network of patches takes another size than the others, in whose company it is then."""
    found, _ = run(collection, networks=NETS, sizes=(56, 72, 80), seconds_left=lambda: 3600.0)
    first, *rest = found.rows
    assert first.cell.size == 80, "the first product, whatever comes out"
    by_size = {wanted: [row for row in rest if row.cell.wanted == wanted] for wanted in (56, 72, 80)}
    assert {row.cell.size for row in by_size[72]} == {72, 64}, "patches of 16 px"
    assert [len(rows) for rows in by_size.values()] == [4, 4, 3]
    for before, after in ((56, 72), (72, 80)):
        known = sorted((row for row in by_size[before] if row.loss is not None), key=lambda row: row.loss or 0.0)
        better = {row.cell.kind for row in known[: (len(known) + 1) // 2]} & {row.cell.kind for row in by_size[after]}
        assert {row.cell.kind for row in by_size[after] if row.state == "measured"} == better
        dropped = [row for row in by_size[after] if row.state == "not run"]
        assert all(f"were better at {before} px" in row.why for row in dropped)


def test_the_choice_is_the_least_loss_and_its_head_is_there(collection: Collection) -> None:
    found, _ = run(collection)
    best = found.choice.best
    assert best.loss == min(row.loss for row in found.rows if row.loss is not None)
    assert found.choice.cheapest.cell.gmacs <= best.cell.gmacs
    assert found.as_dict()["chosen"] == best.as_dict()
    head = found.head(best)
    assert head.weight.shape[0] == 3
    # In the place of the network's own, it is right about the pictures it was solved on.
    model, own = load(best.cell.network)
    with torch.no_grad():
        model.get_submodule("fc").weight.copy_(head.weight)  # type: ignore[operator]
        model.get_submodule("fc").bias.copy_(head.bias)  # type: ignore[operator]
    runtime = Runtime(RuntimeSettings(device="cpu", threads=1))
    view = network_views(model, [replace(own, size=best.cell.size, crop_ratio=best.cell.preprocess.crop_ratio)])
    assert evaluate(view, collection.split("train"), runtime, Reading(16)).results[0]["top1"] > 50


def test_few_selecting_pictures_are_cross_validated_with_the_others(collection: Collection) -> None:
    select = collection.split("val")
    found, _ = run(collection, select=select)
    alone, _ = run(collection)
    for row, other in zip(found.rows, alone.rows, strict=True):
        assert (row.how, row.n) == ("cross-validated", other.n + len(select))
    # The head that ships first is solved on the training pictures alone: the others are to choose on.
    assert found.head(found.choice.best).weight.shape[0] == 3


def test_few_pictures_that_are_reported_on_choose_nothing(collection: Collection) -> None:
    assert select_of(collection) is collection.split("val")
    assert select_of(replace(collection, report="val")) is None
    assert select_of(replace(collection, select="train")) is None


def test_pictures_are_decoded_once_for_all_cells_of_a_size(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    real = frozen_features.evaluation_batches

    def counting(split: Any, preprocesses: Any, *rest: Any) -> Any:
        passes.append(sorted((p.size, p.crop_ratio) for p in preprocesses))
        return real(split, preprocesses, *rest)

    monkeypatch.setattr(frozen_features, "evaluation_batches", counting)
    run(collection, networks=NETS)
    assert sorted(passes) == [[(32, 0.875), (32, 1.0)], [(48, 0.875), (48, 1.0)]]


def test_a_cell_that_would_overrun_the_budget_is_not_begun_and_the_first_always_is(collection: Collection) -> None:
    found, told = run(collection, seconds_left=lambda: 0.0)
    assert [row.state for row in told] == ["measured", "not run", "not run", "not run"]
    assert all("s are left" in row.why for row in told[1:])
    assert found.choice.best is found.rows[0]
    assert found.as_dict()["rows"][1]["top1"] is None


def test_many_pictures_are_sampled_first_and_those_out_of_the_running_go_no_further(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "SAMPLE", 40)
    monkeypatch.setattr(probe, "_CHUNK", 30)
    found, told = run(collection)
    num = len(collection.split("train"))
    first = told[:4]
    assert {(row.state, row.n) for row in first} == {("sample", 40)}
    assert {row.n for row in told[4:]} == {num}
    assert found.choice.best.n == num
    for row in found.rows:
        assert (row.state, row.n) in (("sample", 40), ("measured", num))
        assert row.state == "measured" or "better" in row.why


def test_what_was_computed_in_pieces_is_what_one_pass_gives(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = run(collection, sizes=(32,), crop_ratios=(1.0,))
    monkeypatch.setattr(probe, "SAMPLE", 40)
    monkeypatch.setattr(probe, "_CHUNK", 30)
    pieces, _ = run(collection, sizes=(32,), crop_ratios=(1.0,))
    assert one.rows[0].n == pieces.rows[0].n
    assert one.rows[0].loss == pytest.approx(pieces.rows[0].loss, abs=1e-6)


def test_from_enough_selecting_pictures_on_they_are_held_out(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "HELD_OUT_FROM", 10)
    select = collection.split("val")
    found, _ = run(collection, select=select)
    assert {(row.how, row.n) for row in found.rows} == {("held out", len(select))}


def test_an_unreadable_picture_is_named_at_once_or_counted(photos: Path) -> None:
    bad = photos / "train" / "red" / "0.jpg"
    bad = bad if bad.exists() else sorted((photos / "train" / "red").iterdir())[0]
    bad.write_bytes(b"no picture")
    own = open_collection(Data(uri=str(photos)))
    with pytest.raises(UserError, match=bad.name):
        run(own, split=own.split("train"), load=two_classes)
    found, _ = run(own, split=own.split("train"), load=two_classes, reading=Reading(8, on_bad_image="skip"))
    assert len(found.bad_images) == 1
    assert bad.name in found.bad_images[0]
    assert {row.n for row in found.rows} == {len(own.split("train")) - 1}


def two_classes(network: PretrainedNetwork) -> tuple[nn.Module, Preprocess]:
    return build_model(network.name, 2).eval(), Preprocess(64)


def test_a_signal_stops_it_between_batches(collection: Collection) -> None:
    runtime = Runtime(RuntimeSettings(device="cpu", threads=1))
    told: list[Row] = []

    def on_row(row: Row) -> None:
        told.append(row)
        runtime.stop.received = "SIGTERM"

    with pytest.raises(Stopped):
        run(collection, runtime=runtime, on_row=on_row)
    assert len(told) == 1


def test_a_network_whose_head_is_more_than_a_layer_is_probed(collection: Collection) -> None:
    found, _ = run(collection, networks=(PretrainedNetwork("repvit_m0_9", "none"),), sizes=(32,), crop_ratios=(1.0,))
    assert found.rows[0].state == "measured"


def test_the_sample_has_every_class_and_the_shares_of_all() -> None:
    labels = np.array([0] * 900 + [1] * 90 + [2] * 3)
    order = stratified_order(labels, 0)
    assert sorted(order.tolist()) == list(range(993))
    counts = np.bincount(labels[order[:100]], minlength=3)
    assert counts[2] >= 1
    assert abs(counts[1] - 9) <= 2


def test_a_network_is_loaded_with_a_head_for_the_collection(collection: Collection) -> None:
    lite0 = PretrainedNetwork("tf_efficientnet_lite0", "package:efficientnet-lite0")
    model, preprocess = collection_loader(collection)(lite0)
    assert model.get_classifier().out_features == 3  # type: ignore[operator]
    assert preprocess.interpolation == "bicubic"
