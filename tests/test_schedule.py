from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.schedule import ema_decay, learning_rate

GOLDEN = json.loads((Path(__file__).parent / "golden" / "sequences.json").read_text())


@given(st.integers(1, 500), st.integers(0, 100), st.floats(1e-6, 10), st.floats(0, 1e-7))
def test_the_rate_never_leaves_its_bounds(total: int, warmup: int, peak: float, floor: float) -> None:
    for step in range(total):
        rate = learning_rate(step, peak=peak, total_steps=total, warmup_steps=warmup, min_lr=floor)
        assert 0 < rate <= peak * (1 + 1e-12)


def test_warm_up_reaches_the_peak_and_the_cosine_falls_from_it() -> None:
    rates = [learning_rate(step, peak=1.0, total_steps=20, warmup_steps=5) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1.0
    assert all(a > b for a, b in pairwise(rates[5:]))
    assert rates[-1] < 0.02


def test_constant_stays() -> None:
    assert learning_rate(99, peak=0.3, total_steps=100, warmup_steps=0, shape="constant") == 0.3


def test_the_average_of_the_reference_is_reproduced() -> None:
    average = 0.0
    for step, expected in enumerate(GOLDEN["ema"]["average"], start=1):
        keep = ema_decay(step, decay=0.9998, rule="ramp", ramp_steps=2000)
        average = keep * average + (1 - keep) * step
        assert average == pytest.approx(expected, rel=1e-6)


@given(st.integers(1, 10**6), st.floats(0, 0.99999), st.sampled_from(["constant", "ramp", "timm"]))
def test_the_decay_never_exceeds_what_was_asked(step: int, decay: float, rule: str) -> None:
    assert 0 <= ema_decay(step, decay=decay, rule=rule) <= decay
