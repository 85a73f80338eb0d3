"""The head on fixed features: logistic regression that is pulled towards the old head, solved to convergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DECAYS = tuple(10.0 ** (power / 2) for power in range(2, -10, -1))
"""Strengths of the pull, relative to the mean variance of the features, strongest first."""

_MAX_ITERATIONS = 200
_TOLERANCE = 1e-5
_PATIENCE = 2


@dataclass(frozen=True)
class Head:
    """A linear classifier: weight float64 `[C, D]`, bias float64 `[C]`."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Return float64 `[N, C]` for features `[N, D]`."""
        return features.double() @ self.weight.T + self.bias


@dataclass(frozen=True)
class Rows:
    """Features in pieces that are read again on every pass over them, so that they need not fit in memory."""

    pieces: Sequence[Callable[[], tuple[Tensor, Tensor]]]
    """Each returns features `[n, D]` and labels int64 `[n]`."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for piece in self.pieces:
            yield piece()

    def held(self, device: torch.device) -> Rows:
        """Return the same rows in the memory of a device, as one piece of float64."""
        # Filled piece by piece: joining them first would take the memory twice.
        shapes = [features.shape for features, _ in self]
        features = torch.empty(sum(num for num, _ in shapes), shapes[0][1], dtype=torch.float64, device=device)
        labels = torch.empty(len(features), dtype=torch.int64, device=device)
        first = 0
        for piece, own in self:
            features[first : first + len(piece)] = piece
            labels[first : first + len(piece)] = own
            first += len(piece)
        return Rows((lambda: (features, labels),))


@dataclass(frozen=True)
class Candidate:
    """One strength of the pull and what it gave on the selecting split."""

    decay: float | None
    """None: the old head as it was."""
    loss: float
    """Mean cross-entropy on the selecting split, in nats."""
    top1: float
    """Percent."""
    iterations: int


@dataclass(frozen=True)
class Found:
    """The head that was chosen, and everything that was tried."""

    head: Head
    chosen: Candidate
    candidates: tuple[Candidate, ...]


def search(
    train: Rows,
    select: Rows,
    old: Head,
    smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Found:
    """Return the head that pays the least loss on the selecting split, and all that were tried.

    The objective is the stage's training loss plus `decay * v / 2 * |W - W_old|^2`, with v the mean variance of the
    features (L2-SP, Li et al. 2018): without a pull, heads trained to convergence on features of a trunk that has
    seen these pictures grow without bound. The bias is free. One problem is solved from the solution of the one
    before, from the strongest pull to the weakest; the search ends when the loss has risen `_PATIENCE` times.

    The least loss decides, accuracy only between equals. Not the one-standard-error rule: the solutions lie on one
    smooth path, so a dozen of them leave little room for luck, while that rule would give the old head back whenever
    the gain is below the error of a small split, as most gains of a fix are.
    """
    problem = _Problem(train, old, smoothing, class_weights)
    candidates = [_measured(None, 0, old, select)]
    chosen, head = candidates[0], old
    flat, least, rises = problem.start(), math.inf, 0
    for decay in DECAYS:
        flat, iterations = problem.solve(flat, decay)
        own = problem.head(flat)
        candidate = _measured(decay, iterations, own, select)
        candidates.append(candidate)
        if (candidate.loss, -candidate.top1) < (chosen.loss, -chosen.top1):
            chosen, head = candidate, own
        rises = 0 if candidate.loss < least else rises + 1
        least = min(least, candidate.loss)
        if rises == _PATIENCE:
            break
    return Found(head, chosen, tuple(candidates))


def _measured(decay: float | None, iterations: int, head: Head, select: Rows) -> Candidate:
    loss, num_correct, num = 0.0, 0, 0
    for features, labels in select:
        logits = head.logits(features)
        loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        num_correct += int((logits.argmax(1) == labels).sum())
        num += len(labels)
    return Candidate(decay, loss / max(1, num), 100 * num_correct / max(1, num), iterations)


class _Problem:
    """The objective around the old head, in coordinates in which it is about equally curved everywhere."""

    def __init__(self, train: Rows, old: Head, smoothing: float, class_weights: Sequence[float] | None) -> None:
        self.train, self.old, self.smoothing = train, old, smoothing
        like = old.weight
        self.weights = None if class_weights is None else like.new_tensor(list(class_weights))
        num, total, squares = 0, torch.zeros_like(like[0]), torch.zeros_like(like[0])
        for features, _ in train:
            total += features.double().sum(0)
            num += len(features)
        self.num, self.mean = num, total / num
        for features, _ in train:
            squares += (features.double() - self.mean).square().sum(0)
        self.variances = squares / num
        self.variance = float(self.variances.mean())

    def start(self) -> Tensor:
        """Return the old head as a point: the change of the weight and of the bias at the mean, `[C, D + 1]`."""
        return torch.cat([torch.zeros_like(self.old.weight), torch.zeros_like(self.old.bias)[:, None]], 1)

    def head(self, point: Tensor) -> Head:
        """Return the head that a point stands for."""
        change = point[:, :-1]
        return Head(self.old.weight + change, self.old.bias + point[:, -1] - change @ self.mean)

    def solve(self, start: Tensor, decay: float) -> tuple[Tensor, int]:
        """Minimise from `start`; return the point and the number of iterations."""
        num_classes = len(self.old.bias)
        # The curvature of the loss of an undecided head along every feature, and that of the pull.
        curvature = (1 - 1 / num_classes) / num_classes * self.variances + decay * self.variance
        floor = 1e-12 * float(curvature.max()) or 1.0
        scale = torch.cat([curvature.clamp(min=floor).sqrt(), curvature.new_ones(1)])
        scaled = (start * scale).requires_grad_(True)
        optimizer = torch.optim.LBFGS(
            [scaled],
            max_iter=_MAX_ITERATIONS,
            tolerance_grad=_TOLERANCE,
            tolerance_change=1e-9,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            loss, gradient = self.value(scaled.detach() / scale, decay)
            scaled.grad = gradient / scale
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        return scaled.detach() / scale, int(optimizer.state[scaled]["n_iter"])

    def value(self, point: Tensor, decay: float) -> tuple[Tensor, Tensor]:
        """Return the objective at a point and its gradient `[C, D + 1]`."""
        head = self.head(point)
        num_classes = len(head.bias)
        loss = torch.zeros((), dtype=torch.float64, device=point.device)
        by_weight, by_bias = torch.zeros_like(head.weight), torch.zeros_like(head.bias)
        for features, labels in self.train:
            x = features.double()
            log_p = torch.log_softmax(x @ head.weight.T + head.bias, 1)
            target = torch.full_like(log_p, self.smoothing / num_classes)
            target[torch.arange(len(labels)), labels] += 1 - self.smoothing
            residual = log_p.exp() - target
            own = -(target * log_p).sum(1)
            if self.weights is not None:
                w = self.weights[labels]
                own, residual = own * w, residual * w[:, None]
            loss += own.sum()
            by_weight += residual.T @ x
            by_bias += residual.sum(0)
        change = point[:, :-1]
        pull = decay * self.variance
        loss = loss / self.num + pull / 2 * change.square().sum()
        by_change = (by_weight - by_bias[:, None] * self.mean) / self.num + pull * change
        return loss, torch.cat([by_change, (by_bias / self.num)[:, None]], 1)
