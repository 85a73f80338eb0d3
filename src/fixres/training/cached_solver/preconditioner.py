"""Coordinates in which a quadratic is equally curved in every direction, so that L-BFGS needs few steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Dense:
    """A root R of a curvature `[D, D]` plus a multiple of the identity, R R^T, by Cholesky."""

    def __init__(self, curvature: Tensor, pull: float) -> None:
        curvature.diagonal().add_(pull)
        self.root: Tensor = torch.linalg.cholesky(curvature)

    def times_root(self, point: Tensor) -> Tensor:
        """Return a point `[C, D]` in the coordinates in which the curvature is 1."""
        return point @ self.root

    def over_root(self, point: Tensor) -> Tensor:
        """Undo `times_root`."""
        found: Tensor = torch.linalg.solve_triangular(self.root, point, upper=False, left=False)
        return found

    def over_transposed_root(self, gradient: Tensor) -> Tensor:
        """Return a gradient `[C, D]` in those coordinates."""
        found: Tensor = torch.linalg.solve_triangular(self.root.T, gradient, upper=True, left=False)
        return found


class Narrow:
    """The symmetric root of `rows^T rows` plus a multiple of the identity, for rows `[n, D]` far fewer than D."""

    def __init__(self, rows: Tensor, pull: float) -> None:
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        kept = values > 1e-12 * values[-1].clamp(min=pull)
        values = values[kept]
        self.directions: Tensor = (rows.T @ vectors[:, kept]) / values.sqrt()
        self.beyond = math.sqrt(pull)
        self.along: Tensor = (values + pull).sqrt()

    def times_root(self, point: Tensor) -> Tensor:
        """See `Dense`."""
        return self.beyond * point + (point @ self.directions) * (self.along - self.beyond) @ self.directions.T

    def over_root(self, point: Tensor) -> Tensor:
        """See `Dense`."""
        return point / self.beyond + (point @ self.directions) * (1 / self.along - 1 / self.beyond) @ self.directions.T

    over_transposed_root = over_root


class Diagonal:
    """The root of a curvature `[D]` along the axes plus a multiple of the identity."""

    def __init__(self, curvature: Tensor, pull: float) -> None:
        self.root: Tensor = (curvature + pull).sqrt()

    def times_root(self, point: Tensor) -> Tensor:
        """See `Dense`."""
        return point * self.root

    def over_root(self, point: Tensor) -> Tensor:
        """See `Dense`."""
        return point / self.root

    over_transposed_root = over_root


Metric = Dense | Narrow | Diagonal
"""A root R of a curvature: points times R are the new coordinates."""
