from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.training.cached_solver.norm_statistics import merge, moments_of


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 10_000))
def test_moments_do_not_depend_on_how_the_values_are_divided(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = 100 + torch.randn(sum(sizes), 3, 2, 2, generator=generator)
    merged = merge(moments_of(part) for part in values.split(sizes))
    rows = values.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(merged.mean, rows.mean(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(merged.variance, rows.var(1), rtol=1e-9, atol=0)
