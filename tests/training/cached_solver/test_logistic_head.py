"""The head on fixed features is solved to convergence, however they are kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fixres.training.cached_solver.logistic_head import Head, Rows, search


def rows(features: Tensor, labels: Tensor, pieces: int = 1) -> Rows:
    parts = zip(features.chunk(pieces), labels.chunk(pieces), strict=True)
    return Rows([lambda part=part: part for part in parts])


def clusters(num: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (num,), generator=generator)
    centres = torch.tensor([[0.0, 0, 0, 0], [1.5, 0, 1, 0], [0, 1.5, 0, 1]])
    return centres[labels] + torch.randn(num, 4, generator=generator), labels


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("num", "width"), [(7, 40), (30, 40), (300, 40)])
def test_the_solution_has_no_slope_however_wide_the_features(num: int, width: int, has_bias: bool) -> None:
    generator = torch.Generator().manual_seed(num)
    features = torch.randn(num, width, generator=generator) + 3.0
    labels = torch.arange(num) % 3
    old = Head(0.1 * torch.randn(3, width, generator=generator).double(), torch.zeros(3).double())
    weights = [0.5, 1.0, 2.0]
    found = search(rows(features, labels), rows(features, labels), old, 0.1, weights, has_bias)
    weight, bias = found.head.weight.clone().requires_grad_(), found.head.bias.clone().requires_grad_()
    losses = nn.functional.cross_entropy(
        features.double() @ weight.T + bias, labels, label_smoothing=0.1, reduction="none"
    )
    # Smoothing weighs a picture's loss whole here, by its own class; PyTorch would weigh every class of the target.
    mean = features.double().mean(0) if has_bias else torch.zeros(width).double()
    variance = (features.double() - mean).square().mean()
    assert found.chosen.decay is not None
    pull = found.chosen.decay * variance / 2 * (weight - old.weight).square().sum()
    ((losses * torch.tensor(weights).double()[labels]).mean() + pull).backward()
    assert float(weight.grad.abs().max()) < 3e-4  # type: ignore[union-attr]
    if has_bias:
        assert float(bias.grad.abs().max()) < 3e-4  # type: ignore[union-attr]
    else:
        assert not found.head.bias.any()


def test_the_head_is_solved_to_convergence_in_any_number_of_pieces() -> None:
    features, labels = clusters(400, 0)
    select = rows(*clusters(200, 1))
    old = Head(torch.zeros(3, 4).double(), torch.zeros(3).double())
    found = search(rows(features, labels), select, old, smoothing=0.1)
    again = search(rows(features.double(), labels, pieces=7), select, old, smoothing=0.1)
    torch.testing.assert_close(found.head.weight, again.head.weight, rtol=1e-5, atol=1e-6)
    assert found.chosen.top1 > 60
    # At the solution, the gradient of the stage's loss equals the pull: nothing is left to gain.
    weight = found.head.weight.clone().requires_grad_(True)
    loss = nn.functional.cross_entropy(features.double() @ weight.T + found.head.bias, labels, label_smoothing=0.1)
    (gradient,) = torch.autograd.grad(loss, weight)
    assert found.chosen.decay is not None
    variance = float(features.double().var(0, unbiased=False).mean())
    torch.testing.assert_close(gradient, -found.chosen.decay * variance * found.head.weight, rtol=1e-3, atol=5e-5)


def test_a_head_that_is_best_already_stays() -> None:
    features, labels = clusters(60, 0)
    teacher = Head(torch.randn(3, 4, generator=torch.Generator().manual_seed(2)).double() * 4, torch.zeros(3).double())
    answers = teacher.logits(features).argmax(1)
    noise = labels
    found = search(rows(features, noise), rows(features, answers), teacher)
    assert found.chosen.decay is None
    assert found.head is teacher


def test_class_weights_reach_the_head() -> None:
    features, labels = clusters(300, 3)
    select = rows(*clusters(100, 4))
    old = Head(torch.zeros(3, 4).double(), torch.zeros(3).double())
    plain = search(rows(features, labels), select, old).head
    weighted = search(rows(features, labels), select, old, class_weights=(2.5, 0.25, 0.25)).head
    share = [float((h.logits(features).argmax(1) == 0).float().mean()) for h in (plain, weighted)]
    assert share[1] > share[0] + 0.1


def test_one_strength_is_solved_alone_and_nothing_is_chosen() -> None:
    features, labels = clusters(60, 0)
    old = Head(torch.zeros(3, 4).double(), torch.zeros(3).double())
    select = rows(*clusters(40, 1))
    one = search(rows(features, labels), select, old, decays=(1e-3,))
    assert [candidate.decay for candidate in one.candidates] == [1e-3]
    assert one.chosen is one.candidates[0]
    # Labels to select on that are no use change nothing.
    other = search(rows(features, labels), rows(clusters(40, 1)[0], torch.zeros(40).long()), old, decays=(1e-3,))
    assert torch.equal(one.head.weight, other.head.weight)
