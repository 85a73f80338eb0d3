from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fixres.config.recipe import Data
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import open_collection
from fixres.data.splits import Split
from fixres.data.transforms import evaluation_crop, normalise
from fixres.errors import UserError
from fixres.evaluation import speed as speed_module
from fixres.evaluation.evaluate import Reading, evaluate, network_views, predict_logits
from fixres.models.build import build_model
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime

SIZES = (32, 48, 64)


@pytest.fixture(scope="module")
def split() -> Split:
    return open_collection(Data(uri="synthetic:classes=6,images=72,size=48")).split("val")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_model("test_resnet", 6, init="torch")


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(RuntimeSettings(threads=1))


def test_several_sizes_in_one_pass_equal_one_at_a_time(model: nn.Module, split: Split, runtime: Runtime) -> None:
    preprocesses = [Preprocess(size) for size in SIZES]
    together = evaluate(network_views(model, preprocesses), split, runtime, Reading(batch_size=10))
    for i, preprocess in enumerate(preprocesses):
        alone = evaluate(network_views(model, [preprocess]), split, runtime, Reading(batch_size=10))
        assert np.array_equal(alone.predictions[0], together.predictions[i])
        one, all_ = alone.results[0], together.results[i]
        assert {k: v for k, v in one.items() if k != "images_per_second"} == {
            k: v for k, v in all_.items() if k != "images_per_second"
        }


class Counting:
    def __init__(self, source: object) -> None:
        self.source, self.reads = source, 0

    def read(self, *args: object) -> object:
        self.reads += 1
        return self.source.read(*args)  # type: ignore[attr-defined]


def test_every_picture_is_decoded_once_for_all_sizes(model: nn.Module, split: Split, runtime: Runtime) -> None:
    from dataclasses import replace

    source = Counting(split.source)
    evaluate(
        network_views(model, [Preprocess(s) for s in SIZES]),
        replace(split, source=source),
        runtime,
        Reading(batch_size=7),
    )
    assert source.reads == len(split)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_picture_counts_once_whatever_the_batch_and_workers(
    model: nn.Module, split: Split, runtime: Runtime, batch_size: int, workers: int
) -> None:
    found = evaluate(network_views(model, [Preprocess(32)]), split, runtime, Reading(batch_size, workers))
    expected = evaluate(network_views(model, [Preprocess(32)]), split, runtime, Reading(24, 0))
    assert found.num_images == len(split) == 24
    assert found.indices.tolist() == list(range(24))
    assert found.labels.tolist() == split.labels.tolist()
    result, other = found.results[0], expected.results[0]
    slack = 100 * max(result["num_near_ties"], other["num_near_ties"]) / 24
    assert abs(result["top1"] - other["top1"]) <= slack
    assert result["loss"] == pytest.approx(other["loss"], rel=1e-5)
    assert np.sum(result["confusion"]) == 24


def test_results_are_those_of_the_plain_network(model: nn.Module, split: Split, runtime: Runtime) -> None:
    preprocess = Preprocess(32)
    images = torch.stack([evaluation_crop(split.read(i), preprocess) for i in range(len(split))])
    with torch.inference_mode():
        logits = model.eval()(normalise(images, preprocess.mean, preprocess.std))
    found = evaluate(network_views(model, [preprocess]), split, runtime, Reading(batch_size=24))
    correct = (logits.argmax(1).numpy() == split.labels).sum()
    assert found.results[0]["top1"] == pytest.approx(100 * correct / 24)
    loss = torch.nn.functional.cross_entropy(logits.double(), torch.from_numpy(split.labels))
    assert found.results[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_padding_a_batch_changes_nothing_a_fixed_shape_repeats_bits(model: nn.Module, runtime: Runtime) -> None:
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    few = predict_logits(model.eval(), images, Preprocess(32), runtime, 8)
    more = predict_logits(model.eval(), torch.cat([images, images]), Preprocess(32), runtime, 8)
    assert torch.equal(few, more[:3])


def test_evaluating_leaves_the_network_in_its_mode(model: nn.Module, split: Split, runtime: Runtime) -> None:
    model.train()
    model.layer1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(network_views(model, [Preprocess(32)]), split, runtime, Reading())
    assert model.layer2.training
    assert not model.layer1.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_outputs_that_are_not_finite_are_an_error(split: Split, runtime: Runtime) -> None:
    broken = build_model("test_resnet", 6)
    with torch.no_grad():
        broken.fc.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite at 32 px"):
        evaluate(network_views(broken, [Preprocess(32)]), split, runtime, Reading())


def test_an_illegal_size_is_refused_before_any_picture_is_read(split: Split, runtime: Runtime) -> None:
    with pytest.raises(UserError, match="cannot take 70 px"):
        evaluate(network_views(build_model("test_vit", 6), [Preprocess(70)]), split, runtime, Reading())


@pytest.mark.parametrize(("batch_size", "clock", "speed"), [(10, (0, 9, 9, 10, 10, 13), 5.0), (50, (0, 8), 3.0)])
def test_speed_is_the_median_of_padded_batches_without_the_one_that_warms_up(
    model: nn.Module,
    split: Split,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    clock: tuple[float, ...],
    speed: float,
) -> None:
    assert len(split) == 24
    monkeypatch.setattr(speed_module, "time", SimpleNamespace(perf_counter=partial(next, iter(clock))))
    views = network_views(model, [Preprocess(32)])
    assert evaluate(views, split, runtime, Reading(batch_size)).results[0]["images_per_second"] == speed
