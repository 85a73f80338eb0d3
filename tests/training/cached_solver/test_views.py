from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fixres.data.transforms import evaluation_crop
from fixres.resolution import Preprocess
from fixres.training.cached_solver import solve, views
from tests.support.solver_problems import DATA, problem, warm

pytestmark = pytest.mark.usefixtures("few_decays")


def test_views_are_the_test_crop_its_mirror_and_shifted_crops() -> None:
    p = Preprocess(48, crop_ratio=0.75)
    picture = DATA.split("train").read(0)
    decoded = tuple(evaluation_crop(picture, q)[None] for q in views.preprocesses(p, 10))
    seen = [views.view(decoded, number, 48) for number in range(10)]
    assert torch.equal(seen[0], decoded[0])
    assert torch.equal(seen[1], decoded[0].flip(-1))
    assert torch.equal(seen[2], decoded[1][..., 8:56, 0:48])
    assert torch.equal(seen[4], decoded[1][..., 8:56, 16:64])
    assert all(tuple(t.shape) == (1, 3, 48, 48) for t in seen)
    assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    assert views.max_views(Preprocess(48, crop_ratio=1.0)) == 2


@pytest.mark.parametrize("cache_gib", [2.0, 0.0])
def test_more_views_than_the_crop_leaves_room_for_are_those_there_are(tmp_path: Path, cache_gib: float) -> None:
    whole = Preprocess(48, crop_ratio=1.0)
    found = solve.solve(problem(warm(), tmp_path, preprocess=whole, num_views=4, cache_gib=cache_gib))
    assert found.num_views == 2
