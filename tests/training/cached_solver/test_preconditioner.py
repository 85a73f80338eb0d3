"""In the new coordinates a quadratic is equally curved in every direction, whichever root is taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fixres.training.cached_solver.preconditioner import Dense, Diagonal, Metric, Narrow

PULL = 0.3
METRICS: dict[str, Callable[[Tensor], Metric]] = {
    "dense": lambda rows: Dense(rows.T @ rows, PULL),
    "narrow": lambda rows: Narrow(rows, PULL),
}


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("num_rows", [1, 5, 9])
def test_the_curvature_is_one_in_every_direction(kind: str, num_rows: int) -> None:
    generator = torch.Generator().manual_seed(num_rows)
    rows = torch.randn(num_rows, 9, generator=generator, dtype=torch.float64)
    point = torch.randn(3, 9, generator=generator, dtype=torch.float64)
    curvature = rows.T @ rows + PULL * torch.eye(9, dtype=torch.float64)
    metric = METRICS[kind](rows)
    there = metric.times_root(point)
    torch.testing.assert_close(there.square().sum(), (point @ curvature * point).sum())
    torch.testing.assert_close(metric.over_root(there), point)
    # The gradient of half the square is the point itself.
    torch.testing.assert_close(metric.over_transposed_root(point @ curvature), there)


def test_rows_that_repeat_each_other_count_as_one_direction() -> None:
    row = torch.randn(1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    metric = Narrow(row.repeat(4, 1), PULL)
    assert metric.directions.shape == (6, 1)
    point = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(metric.over_root(metric.times_root(point)), point)


def test_along_the_axes_a_diagonal_is_the_whole_curvature() -> None:
    variances = torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64)
    point = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    metric, dense = Diagonal(variances, PULL), Dense(torch.diag(variances), PULL)
    for move in ("times_root", "over_root", "over_transposed_root"):
        torch.testing.assert_close(getattr(metric, move)(point), getattr(dense, move)(point))
