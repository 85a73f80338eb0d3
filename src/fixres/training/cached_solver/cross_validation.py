"""How good a new head on fixed features is: strengths of its pull compared on pictures it was not solved on.

The objective is that of `logistic_head` with a pull towards zero, for a collection whose head is new. It is also that
of scikit-learn's `LogisticRegression`, whose C is 1 / (decay v N) for N pictures to solve on and the mean variance v of
all features, and twice that for two classes, which have one row of weights there in place of two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fixres.data.sampling import Indices, stratified_folds
from fixres.evaluation.temperature_scaling import cross_fitted_losses
from fixres.training.cached_solver import logistic_head
from fixres.training.cached_solver.logistic_head import (
    PATIENCE,
    Head,
    HeadProblem,
    Rows,
    minimise,
    undecided,
)
from fixres.training.cached_solver.preconditioner import Diagonal

NUM_FOLDS = 5
HELD_OUT_FROM = 1000
"""Selecting pictures from which they are held out as they are: folds would only cost more."""
_NEVER = -1
"""The fold of a picture that every head is solved on."""
_NO_VARIANCE = 1e-12
"""Share of the largest variance below which it is rounding."""


@dataclass(frozen=True)
class CrossValidated:
    """What heads said of pictures they were not solved on."""

    how: Literal["cross-validated", "held out"]
    places: Indices
    """Rows of the features that were held out once, ascending, int64 `[M]`."""
    labels: Indices
    """Theirs, int64 `[M]`."""
    folds: Indices
    """The fold each was held out with, int64 `[M]`."""
    decays: tuple[float, ...]
    """Strengths of the pull that were tried, strongest first."""
    losses: npt.NDArray[np.float64]
    """Cross-entropy in nats of every picture at every strength, `[len(decays), M]`."""
    correct: npt.NDArray[np.bool_]
    """Whether it is classified right, `[len(decays), M]`."""
    chosen: int
    """Place of the strength with the least mean loss."""
    logits: Tensor
    """Of the chosen strength, float64 `[M, C]`."""

    @property
    def decay(self) -> float:
        """The chosen strength."""
        return self.decays[self.chosen]

    @property
    def top1(self) -> float:
        """Accuracy at the chosen strength, in percent."""
        return 100 * float(self.correct[self.chosen].mean())

    def tempered_losses(self) -> npt.NDArray[np.float64]:
        """Return the cross-entropy `[M]` of every picture after a temperature fitted on the other folds.

        What was held out in one piece is divided into folds for it, so that no picture decides its own temperature.
        """
        folds = self.folds if len(np.unique(self.folds)) > 1 else stratified_folds(self.labels, NUM_FOLDS, 0)
        return cross_fitted_losses(self.logits, torch.from_numpy(self.labels), folds)


def cross_validate(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    seed: int = 0,
    held_out: npt.NDArray[np.bool_] | None = None,
    decays: Sequence[float] = (),
    between: Callable[[], None] = lambda: None,
) -> CrossValidated:
    """Solve new heads on fixed features and measure each on the pictures it was not solved on.

    The path goes from the strongest pull to the weakest, every fold from its own solution before, and ends when the
    mean loss has risen twice.

    Args:
        features: `[N, D]`.
        labels: int64 `[N]`.
        num_classes: outputs of the head, C.
        seed: of the folds, which are stratified. A class of one picture is never held out, since no head would know it.
        held_out: bool `[N]`: these are measured with heads solved on the others, in place of folds.
        decays: strengths of the pull, relative to the mean variance of the features, strongest first; by default those
            of `logistic_head`.
        between: called between two solutions; it may raise.

    Raises:
        ValueError: no picture can be held out.
    """
    folds = _folds(labels.numpy(), seed) if held_out is None else np.where(held_out, 0, _NEVER)
    places = np.flatnonzero(folds != _NEVER)
    if not len(places) or (len(places) == len(folds) and len(np.unique(folds)) == 1):
        raise ValueError(f"none of {len(folds)} pictures can be held out")
    heads = _FoldHeads(_Rows(features), labels, num_classes, folds)
    own, losses, correct = labels[places], [], []
    least, rises, kept = math.inf, 0, None
    decays = decays or logistic_head.DECAYS
    for decay in decays:
        between()
        held = heads.solve(decay)[places]
        losses.append(_losses(held, own))
        correct.append((held.argmax(1) == own).numpy())
        mean = float(losses[-1].mean())
        rises = 0 if mean < least else rises + 1
        if kept is None or mean < least:
            least, kept = mean, held
        if rises == PATIENCE:
            break
    assert kept is not None
    return CrossValidated(
        how="cross-validated" if held_out is None else "held out",
        places=places,
        labels=labels.numpy()[places],
        folds=folds[places],
        decays=tuple(decays[: len(losses)]),
        losses=np.stack(losses),
        correct=np.stack(correct),
        chosen=int(np.argmin([own.mean() for own in losses])),
        logits=kept,
    )


def solve_head(features: Tensor, labels: Tensor, num_classes: int, decay: float) -> Head:
    """Return the new head for features `[N, D]` and labels int64 `[N]` with a pull of one strength towards zero."""
    x = features.double()
    zero = Head(x.new_zeros(num_classes, x.shape[1]), x.new_zeros(num_classes))
    problem = HeadProblem(Rows((lambda: (x, labels),)), zero, 0.0, None, has_bias=True)
    return problem.head(problem.solve(problem.start(), decay)[0])


def _folds(labels: Indices, seed: int) -> Indices:
    counts = np.bincount(labels)
    is_known = counts[labels] > 1
    folds = np.full(len(labels), _NEVER, dtype=np.int64)
    folds[is_known] = stratified_folds(labels[is_known], NUM_FOLDS, seed)
    return folds


class _Rows:
    """Features less their mean along their principal axes, which are no more than there are pictures.

    A pull towards zero is the same in every direction, so that the solution is the same in all rotated coordinates, and
    zero where the features do not differ. Along these axes the curvature needs no matrix, whatever the pull.
    """

    def __init__(self, features: Tensor) -> None:
        x = features.double()
        x = x - x.mean(0)
        self.variance = float(x.square().mean())
        if len(x) < x.shape[1]:
            values, vectors = torch.linalg.eigh(x @ x.T)
            is_kept = values > _NO_VARIANCE * values[-1]
            x = vectors[:, is_kept] * values[is_kept].sqrt()
        else:
            # Any rotation leaves the solution as it is: of the axes, float32 is exact enough.
            x = x @ torch.linalg.eigh((x.T @ x).float())[1].double()
        self.variances: Tensor = x.square().mean(0)
        self.values: Tensor = x


class _FoldHeads:
    """One head for every fold, solved on the others: all at once, since they are one problem with the same rows."""

    def __init__(self, rows: _Rows, labels: Tensor, num_classes: int, folds: Indices) -> None:
        self.rows, self.labels, self.num_classes = rows, labels, num_classes
        self.folds = torch.from_numpy(folds)
        numbers = torch.unique(self.folds[self.folds != _NEVER])
        is_used = self.folds[:, None] != numbers[None, :]
        # What a picture adds to the mean loss of each head, `[N, F]`.
        self.weights: Tensor = is_used.double() / is_used.sum(0)
        self.own: Tensor = torch.searchsorted(numbers, self.folds).clamp(min=0)
        width = rows.values.shape[1]
        self.point: Tensor = torch.zeros(len(numbers) * num_classes, width + 1, dtype=torch.float64)

    def solve(self, decay: float) -> Tensor:
        """Go on from the solution before to that of a weaker pull; return each picture's logits, from its own fold."""
        curvature = undecided(self.num_classes)
        pull = decay * self.rows.variance
        metric = Diagonal(self.rows.variances * curvature, pull or 1.0)
        self.point, _ = minimise(lambda point: self._value(point, pull), self.point, metric, curvature)
        logits = self._logits(self.point)
        return logits[torch.arange(len(logits)), self.own]

    def _logits(self, point: Tensor) -> Tensor:
        """Return float64 `[N, F, C]`."""
        products = self.rows.values @ point[:, :-1].T + point[:, -1]
        return products.view(len(products), -1, self.num_classes)

    def _value(self, point: Tensor, pull: float) -> tuple[Tensor, Tensor]:
        """Return the sum of the heads' objectives and its gradient."""
        log_p = self._logits(point).log_softmax(2)
        of_label = log_p[torch.arange(len(log_p)), :, self.labels]
        change = point[:, :-1]
        loss = -(self.weights * of_label).sum() + pull / 2 * change.square().sum()
        residual = log_p.exp()
        residual[torch.arange(len(log_p)), :, self.labels] -= 1
        residual = (residual * self.weights[:, :, None]).flatten(1)
        by_weight = residual.T @ self.rows.values + pull * change
        return loss, torch.cat([by_weight, residual.sum(0)[:, None]], 1)


def _losses(logits: Tensor, labels: Tensor) -> npt.NDArray[np.float64]:
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none").numpy()
