"""How many unreadable pictures training may leave out."""

from __future__ import annotations

import pytest

from fixres.data.bad_images import bad_image_limit


@pytest.mark.parametrize(
    ("num", "share", "limit"),
    [(5_000, 0.01, 50), (1_000, 0.01, 10), (999, 0.01, 10), (50, 0.0, 10), (50, 1.0, 49), (8, 0.01, 7), (1, 1.0, 0)],
)
def test_the_limit_is_a_share_of_the_split(num: int, share: float, limit: int) -> None:
    assert bad_image_limit(num, share) == limit
