from __future__ import annotations

import pytest

from fixres.training.throughput_meter import EpochSpeed


def test_fps_is_the_mean_rate_without_the_first_five_steps() -> None:
    speed = EpochSpeed()
    for seconds in (100.0, 100.0, 100.0, 100.0, 100.0, 1.0, 0.5):
        speed.add(seconds, 10)
    # The mean of the rates 10 and 20, not 20 images in 1.5 seconds.
    assert speed.fps() == 15.0


@pytest.mark.parametrize(
    ("seconds", "fps"), [([], 0.0), ([2.0], 5.0), ([2.0, 1.0], 10.0), ([9.0, 1.0, 1.0, 1.0, 0.5], 12.5), ([0.0], 0.0)]
)
def test_fps_of_a_short_epoch_leaves_out_only_its_first_step(seconds: list[float], fps: float) -> None:
    speed = EpochSpeed()
    for value in seconds:
        speed.add(value, 10)
    assert speed.fps() == fps
