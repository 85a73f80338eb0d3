"""Speeds of an evaluation: a median, and the remarks that say when it is not to be trusted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fixres.evaluation import speed
from fixres.evaluation.speed import Stopwatch, images_per_second, speed_remarks


def watch_of(monkeypatch: pytest.MonkeyPatch, laps: list[float], missing: float = 0.0) -> Stopwatch:
    clock = iter([0.0, *(tick for lap in laps for tick in (0.0, lap))])
    others = SimpleNamespace(seconds=lambda: 10.0, missing=lambda: missing)
    monkeypatch.setattr(speed, "OtherWork", lambda: others)
    watch = Stopwatch(1)
    next(clock)
    with monkeypatch.context() as patch:
        patch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
        for _ in laps:
            with watch.lap(0):
                pass
    watch.stop()
    return watch


def test_even_batches_on_a_free_machine_need_no_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watch_of(monkeypatch, [9.0, 1.0, 1.1, 1.0, 1.1, 1.0], missing=0.1)
    assert speed_remarks([watch], [64]) == ()
    assert images_per_second([watch], 0, 32) == 32.0


def test_a_wide_spread_is_given_with_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watch_of(monkeypatch, [9.0, 1.0, 1.0, 2.0, 4.0, 4.0])
    assert speed_remarks([watch], [96]) == (
        "img/s is a median; the middle half of the batches ran at 96 px 0.50 to 2.00 times that",
    )


def test_a_machine_that_others_use_is_called_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    (remark,) = speed_remarks([watch_of(monkeypatch, [1.0, 1.0], missing=0.45)], [64])
    assert remark.startswith("the machine was busy: other programs left 55 % of the processors")
