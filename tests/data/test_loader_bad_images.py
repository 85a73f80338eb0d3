"""How many unreadable pictures training may leave out."""

from __future__ import annotations

import pytest

from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.data.loader import bad_image_limit, require_few_bad
from fixres.errors import UserError

SPLIT = open_collection(Data(uri="synthetic:classes=3,images=50,size=8")).split("train")
PATHS = list(SPLIT.paths)


@pytest.mark.parametrize(
    ("num", "share", "limit"),
    [(5_000, 0.01, 50), (1_000, 0.01, 10), (999, 0.01, 10), (50, 0.0, 10), (50, 1.0, 49), (8, 0.01, 7), (1, 1.0, 0)],
)
def test_the_limit_is_a_share_of_the_split(num: int, share: float, limit: int) -> None:
    assert bad_image_limit(num, share) == limit


def test_as_many_as_may_be_left_out_are_and_one_more_is_told_with_what_would_do() -> None:
    require_few_bad(SPLIT, 0.01, PATHS[:10])
    with pytest.raises(UserError) as caught:
        require_few_bad(SPLIT, 0.01, PATHS[:11], "; and more")
    told = str(caught.value)
    assert "11 pictures of 'train' cannot be read, and 10 of its 50 may be left out (data.max_bad_images 0.01" in told
    assert f"{', '.join(PATHS[:5])}, ...; and more\n" in told
    # Twice as many as are known by now: more may follow.
    assert told.endswith("--data.max_bad_images 0.44")
    require_few_bad(SPLIT, 0.44, PATHS[:11])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_that_can_be_read_is_never_enough(share: float) -> None:
    with pytest.raises(UserError, match="none of the 50 pictures of 'train' can be read"):
        require_few_bad(SPLIT, share, PATHS)
