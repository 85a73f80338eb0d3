"""The head on fixed features: logistic regression that is pulled towards the old head, solved to convergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fixres.training.cached_solver.preconditioner import Dense, Metric, Narrow

DECAYS = tuple(10.0 ** (power / 2) for power in range(2, -10, -1))
"""Strengths of the pull, relative to the mean variance of the features, strongest first."""

PATIENCE = 2
"""Rises of the loss after which weaker pulls are no longer tried."""
_MAX_ITERATIONS = 200
_TOLERANCE = 1e-5
_ROWS_PER_FEATURE = 4
"""Rows whose covariance stands for that of all: it only decides how many steps are needed."""
_BLOCK_ROWS = {"cpu": 256}
"""Rows made float64 at once: on a CPU so few that they stay in its cache."""


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
        """Return the same rows in the memory of a device, as one piece."""
        # Filled piece by piece: joining them first would take the memory twice.
        like = [features for features, _ in self]
        features = torch.empty(sum(map(len, like)), like[0].shape[1], dtype=like[0].dtype, device=device)
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
    has_bias: bool = True,
) -> Found:
    """Return the head that pays the least loss on the selecting split, and all that were tried.

    The objective is the stage's training loss plus `decay * v / 2 * |W - W_old|^2`, with v the mean variance of the
    features (L2-SP, Li et al. 2018): without a pull, heads trained to convergence on features of a trunk that has
    seen these pictures grow without bound. The bias is free, or 0 where the head has none. One problem is solved from
    the solution of the one before, from the strongest pull to the weakest; the search ends when the loss has risen
    `PATIENCE` times.

    The least loss decides, accuracy only between equals. Not the one-standard-error rule: the solutions lie on one
    smooth path, so a dozen of them leave little room for luck, while that rule would give the old head back whenever
    the gain is below the error of a small split, as most gains of a fix are.
    """
    problem = HeadProblem(train, old, smoothing, class_weights, has_bias)
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
        if rises == PATIENCE:
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


class HeadProblem:
    """The objective around the old head, in coordinates in which it is about equally curved in every direction."""

    def __init__(
        self, train: Rows, old: Head, smoothing: float, class_weights: Sequence[float] | None, has_bias: bool
    ) -> None:
        self.train, self.old, self.smoothing, self.has_bias = train, old, smoothing, has_bias
        like = old.weight
        self.weights = None if class_weights is None else like.new_tensor(list(class_weights))
        self.num, total = 0, torch.zeros_like(like[0])
        for x, _ in self._blocks():
            total += x.sum(0)
            self.num += len(x)
        # A bias takes up the mean of the features; without one, what matters is how far they are from 0.
        self.mean = total / self.num if has_bias else torch.zeros_like(total)
        squares = torch.zeros_like(total)
        every, first = max(1, self.num // (_ROWS_PER_FEATURE * len(total))), 0
        num_taken = -(-self.num // every)
        # The rows themselves are kept while they are few, else the sum of their products.
        self.few = like.new_empty(num_taken, len(total)) if 2 * num_taken <= len(total) else None
        self.covariance = like.new_zeros(len(total), len(total)) if self.few is None else None
        for x, _ in self._blocks():
            centred = x - self.mean
            squares += centred.square().sum(0)
            taken = centred[-first % every :: every]
            if self.few is not None:
                start = -(-first // every)
                self.few[start : start + len(taken)] = taken / math.sqrt(num_taken)
            elif self.covariance is not None:
                self.covariance.addmm_(taken.T, taken, alpha=1 / num_taken)
            first += len(x)
        self.variance = float(squares.mean()) / self.num

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield features float64 `[n, D]` and labels `[n]`, in memory that the next block takes again.

        Blocks are cut without regard to the pieces, so that every sum, and with it the head, is the same to the bit
        however the rows are kept.
        """
        like = self.old.weight
        num_rows = _BLOCK_ROWS.get(like.device.type, 16_384)
        x, y = like.new_empty(num_rows, like.shape[1]), like.new_empty(num_rows, dtype=torch.int64)
        num_filled = 0
        for features, labels in self.train:
            first = 0
            while first < len(features):
                num = min(num_rows - num_filled, len(features) - first)
                x[num_filled : num_filled + num] = features[first : first + num]
                y[num_filled : num_filled + num] = labels[first : first + num]
                first, num_filled = first + num, num_filled + num
                if num_filled == num_rows:
                    yield x, y
                    num_filled = 0
        if num_filled:
            yield x[:num_filled], y[:num_filled]

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
        curvature = undecided(num_classes)
        pull = decay * self.variance or 1.0
        metric: Metric
        if self.few is not None:
            metric = Narrow(self.few * math.sqrt(curvature), pull)
        else:
            assert self.covariance is not None
            metric = Dense(self.covariance * curvature, pull)
        return minimise(lambda point: self.value(point, decay), start, metric, curvature)

    def value(self, point: Tensor, decay: float) -> tuple[Tensor, Tensor]:
        """Return the objective at a point and its gradient `[C, D + 1]`."""
        head = self.head(point)
        num_classes = len(head.bias)
        loss = torch.zeros((), dtype=torch.float64, device=point.device)
        by_weight, by_bias = torch.zeros_like(head.weight), torch.zeros_like(head.bias)
        for x, labels in self._blocks():
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
        by_bias = by_bias if self.has_bias else torch.zeros_like(by_bias)
        by_change = (by_weight - by_bias[:, None] * self.mean) / self.num + pull * change
        return loss, torch.cat([by_change, (by_bias / self.num)[:, None]], 1)


def undecided(num_classes: int) -> float:
    """Return the curvature of the loss of a head that has not decided on anything, in the direction of a logit."""
    return (1 - 1 / num_classes) / num_classes


def minimise(
    value: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, metric: Metric, bias_curvature: float
) -> tuple[Tensor, int]:
    """Minimise a smooth function of weights and biases `[C, D + 1]` from `start`.

    Args:
        value: a point to the function there and its gradient.
        start: where to begin.
        metric: a root of the curvature of the weights.
        bias_curvature: that of the biases.

    Returns:
        the point and the number of iterations.
    """
    bias_root = math.sqrt(bias_curvature)

    def joined(weight: Tensor, bias: Tensor) -> Tensor:
        return torch.cat([weight, bias], 1)

    scaled = joined(metric.times_root(start[:, :-1]), start[:, -1:] * bias_root).requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [scaled],
        max_iter=_MAX_ITERATIONS,
        tolerance_grad=_TOLERANCE,
        tolerance_change=1e-9,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def unscaled() -> Tensor:
        point = scaled.detach()
        return joined(metric.over_root(point[:, :-1]), point[:, -1:] / bias_root)

    def closure() -> Tensor:
        loss, gradient = value(unscaled())
        scaled.grad = joined(metric.over_transposed_root(gradient[:, :-1]), gradient[:, -1:] / bias_root)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return unscaled(), int(optimizer.state[scaled]["n_iter"])
