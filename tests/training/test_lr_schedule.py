"""Learning rates and averages by the step, against the published sequences and formulas."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, MultiStepLR

from fixres.config.loading import validate
from fixres.config.recipe import Stage
from fixres.data.progressive_sizes import make_timeline
from fixres.training.lr_schedule import Curve, batch_factor, ema_decay, is_stale, kept_of_start

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "sequences.json").read_text())


def curve(steps: int, epochs: int, batch_size: int = 4, **stage: Any) -> Curve:
    """Return the curve of a stage with `steps` steps in each of its epochs."""
    values = {"warmup_epochs": 0, **stage, "epochs": epochs, "batch_size": batch_size}
    complete: Stage = validate({"train": values}).train
    return Curve(complete, make_timeline(complete, 32, steps * batch_size, seed=0, stage_index=0))


def rates(found: Curve) -> list[float]:
    return [found.at(step) for step in range(found.timeline.total_steps)]


# --- the published sequences


def test_the_quadratic_warm_up_cosine_of_the_reference_is_reproduced() -> None:
    found = rates(curve(7, 6, lr=0.1, min_lr=1e-4, warmup_epochs=2, warmup_shape="quadratic"))
    assert found == pytest.approx(GOLDEN["warmup_cosine"]["lr"], rel=1e-12, abs=1e-12)


@given(st.integers(1, 9), st.integers(2, 9), st.floats(1e-3, 1), st.floats(0, 1e-3), st.data())
def test_any_quadratic_warm_up_cosine_follows_the_published_formula(
    steps: int, epochs: int, high: float, low: float, data: st.DataObject
) -> None:
    warm = data.draw(st.integers(0, epochs - 1))
    found = rates(curve(steps, epochs, lr=high, min_lr=low, warmup_epochs=warm, warmup_shape="quadratic"))
    w, total = warm * steps, epochs * steps
    for i, rate in enumerate(found):
        after = low + 0.5 * (high - low) * (1 + math.cos(math.pi * (i - w) / (total - w)))
        assert rate == pytest.approx(high * (i / w) ** 2 if i < w else after, abs=1e-12)


def test_restarts_per_epoch_are_those_of_torch_as_resnext_pytorch_steps_them() -> None:
    found = curve(5, 12, lr=0.1, schedule="restarts", cycles=4, min_lr=5e-5, lr_update="epoch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    theirs = CosineAnnealingWarmRestarts(optimizer, T_0=3, eta_min=5e-5)
    for epoch in range(12):
        assert {found.at(5 * epoch + batch) for batch in range(5)} == {found.at(5 * epoch)}
        assert found.at(5 * epoch) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()


def test_step_is_the_schedule_of_fixres() -> None:
    """lr 0.02 at 512 pictures: 0.16, 0.016, 1.6e-3, 1.6e-4 for 30 epochs each, from the start of the epoch."""
    stage = {"lr_rule": "fixres", "base_lr": 0.02, "schedule": "step"}
    found = curve(2, 120, 512, **stage)
    assert [found.at(2 * epoch) for epoch in (0, 29, 30, 59, 60, 89, 90, 119)] == pytest.approx(
        [0.16, 0.16, 0.016, 0.016, 1.6e-3, 1.6e-3, 1.6e-4, 1.6e-4], rel=1e-12
    )
    assert found.at(2 * 30 - 1) == pytest.approx(0.16)


@given(st.integers(1, 5), st.floats(0.05, 0.9), st.integers(1, 4))
def test_step_decays_as_torch_does(every: int, factor: float, steps: int) -> None:
    found = curve(steps, 12, lr=0.3, schedule="step", decay_epochs=every, decay_factor=factor)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    theirs = MultiStepLR(optimizer, list(range(every, 12, every)), factor)
    for epoch in range(12):
        assert found.at(epoch * steps) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_the_average_of_the_reference_is_reproduced() -> None:
    average = 0.0
    for step, expected in enumerate(GOLDEN["ema"]["average"], start=1):
        keep = ema_decay(step, decay=0.9998, rule="ramp", ramp_steps=2000)
        average = keep * average + (1 - keep) * step
        assert average == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("step", "decay"),
    [(1, 0.0005), (10, 0.0050), (100, 0.0488), (1000, 0.3934), (2000, 0.6320), (5000, 0.9177), (10_000, 0.9931)],
)
def test_the_ramp_has_the_published_decays(step: int, decay: float) -> None:
    assert ema_decay(step, decay=0.9998, rule="ramp") == pytest.approx(decay, abs=5e-5)


# --- shapes


def test_linear_warm_up_reaches_the_peak_and_the_cosine_falls_from_it() -> None:
    found = rates(curve(5, 4, lr=1.0, warmup_epochs=1))
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[5] == 1.0
    assert all(a > b for a, b in pairwise(found[5:]))
    assert found[-1] < 0.02


def test_cycles_begin_at_their_own_peak_and_end_near_the_bottom() -> None:
    found = rates(curve(10, 6, lr=1.0, schedule="restarts", cycles=3, cycle_decay=0.5, min_lr=0.01))
    assert [found[0], found[20], found[40]] == pytest.approx([1.0, 0.5, 0.25])
    assert all(found[k] < 0.02 for k in (19, 39, 59))


def test_points_are_joined_by_straight_lines() -> None:
    found = curve(4, 8, lr=2.0, schedule="points", lr_points=[[0, 0.5], [2, 1], [6, 0]])
    epochs = (0, 1, 2, 4, 5)
    assert [found.at(4 * epoch) for epoch in epochs] == pytest.approx([1.0, 1.5, 2.0, 1.0, 0.5])
    assert found.at(2) == pytest.approx(2.0 * 0.625)
    assert [found.at(24), found.at(31)] == [0.0, 0.0]


def test_constant_stays() -> None:
    assert set(rates(curve(3, 5, lr=0.3, schedule="constant"))) == {0.3}


SHAPES = st.sampled_from(["cosine", "restarts", "step", "constant"])


@given(SHAPES, st.integers(1, 40), st.integers(1, 30), st.floats(0, 0.99), st.floats(1e-6, 10), st.booleans())
def test_the_rate_never_leaves_its_bounds(
    shape: str, steps: int, epochs: int, warm: float, peak: float, by_epoch: bool
) -> None:
    stage = {"lr": peak, "schedule": shape, "min_lr": peak / 7, "warmup_epochs": warm * epochs}
    found = rates(curve(steps, epochs, **stage, lr_update="epoch" if by_epoch else "step"))
    warmup = round(warm * epochs * steps)
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in found)
    assert all(rate >= peak / 7 * (1 - 1e-9) for rate in found[warmup + 1 :])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 8))
def test_the_default_is_a_linear_warm_up_and_half_a_cosine(steps: int, epochs: int, warm: int) -> None:
    warm = min(warm, epochs - 1)
    found = rates(curve(steps, epochs, lr=0.3, min_lr=1e-3, warmup_epochs=warm))
    begun, total = warm * steps, steps * epochs
    rising = [0.3 * (step + 1) / begun for step in range(begun)]
    falling = [1e-3 + 0.299 * (1 + math.cos(math.pi * (s - begun) / (total - begun))) / 2 for s in range(begun, total)]
    assert found == pytest.approx([*rising, *falling], rel=1e-12)


# --- batches of other sizes


@pytest.mark.parametrize(("rule", "factor"), [("linear", 4.0), ("sqrt", 2.0), ("none", 1.0)])
def test_the_rate_follows_the_batch(rule: str, factor: float) -> None:
    assert batch_factor(4.0, rule) == factor
    sizes = {"size": 32, "sizes": [16, 32], "batch_rule": "area", "batch_lr": rule}
    found = curve(8, 2, 8, lr=0.1, schedule="constant", **sizes)
    assert [found.timeline.at(step).batch_size for step in (0, 2)] == [32, 8]
    assert [found.at(0), found.at(2)] == pytest.approx([0.1 * factor, 0.1])


# --- the end of a stage, and the average


def test_a_stage_ends_after_so_many_evaluations_without_a_better_one() -> None:
    assert [is_stale(epoch, 4, 1, 2) for epoch in (4, 5, 6, 7)] == [False, False, True, True]
    assert [is_stale(epoch, 4, 2, 2) for epoch in (6, 8)] == [False, True]
    assert not is_stale(1000, 1, 1, 0)


@given(st.integers(1, 10**6), st.floats(0, 0.99999), st.sampled_from(["constant", "ramp", "timm"]))
def test_the_decay_never_exceeds_what_was_asked(step: int, decay: float, rule: str) -> None:
    assert 0 <= ema_decay(step, decay=decay, rule=rule) <= decay


def test_the_warm_up_of_timm_is_its_own_one_update_earlier() -> None:
    theirs = ModelEmaV3(nn.Linear(1, 1), decay=0.999, use_warmup=True)
    for step in (1, 2, 10, 1000, 10**6):
        assert ema_decay(step, decay=0.999, rule="timm") == pytest.approx(theirs.get_decay(step + 1), rel=1e-12)


@given(st.integers(1, 10**6), st.floats(0, 0.99999))
def test_a_constant_decay_is_constant(step: int, decay: float) -> None:
    assert ema_decay(step, decay=decay, rule="constant") == decay


@pytest.mark.parametrize(("decay", "rule"), [(0.99, "constant"), (0.9998, "ramp"), (0.995, "timm"), (0.0, "timm")])
def test_what_an_average_keeps_of_its_start_is_the_product_of_its_decays(decay: float, rule: str) -> None:
    average = 1.0
    for step in range(1, 8):
        average *= ema_decay(step, decay=decay, rule=rule)
        assert kept_of_start(step, decay=decay, rule=rule) == pytest.approx(average, abs=1e-6)
    assert kept_of_start(24_000, decay=0.99998, rule="constant") == pytest.approx(0.6188, abs=1e-4)
