"""Weights of the classes in the loss: torch's loss without them, and with them the weight of every picture."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fixres.config.stage import Stage
from fixres.training.losses import training_loss

WEIGHTS = (0.5, 4 / 3, 4.0)


def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Return 8 rows of logits and their labels."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, generator=generator), torch.tensor([0, 0, 1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_weights_it_is_torchs_loss_to_the_bit(smoothing: float) -> None:
    logits, labels = logits_and_labels()
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert torch.equal(training_loss(logits, labels, Stage(label_smoothing=smoothing)), expected)
    soft = F.one_hot(labels, 3).float() * (1 - smoothing) + smoothing / 3
    assert torch.equal(training_loss(logits, soft, Stage(label_smoothing=smoothing)), F.cross_entropy(logits, soft))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_weight_multiplies_the_loss_of_its_pictures(smoothing: float) -> None:
    logits, labels = logits_and_labels()
    each = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    expected = sum(WEIGHTS[label] * loss for label, loss in zip(labels.tolist(), each, strict=True)) / 8
    assert training_loss(logits, labels, Stage(label_smoothing=smoothing), WEIGHTS) == pytest.approx(float(expected))
    if smoothing == 0:
        weighted = F.cross_entropy(logits, labels, torch.tensor(WEIGHTS))
        normaliser = sum(WEIGHTS[label] for label in labels.tolist()) / 8
        assert float(weighted) * normaliser == pytest.approx(float(expected))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets_of_whole_labels_have_the_loss_of_the_labels(smoothing: float) -> None:
    logits, labels = logits_and_labels()
    soft = F.one_hot(labels, 3).float() * (1 - smoothing) + smoothing / 3
    expected = training_loss(logits, labels, Stage(label_smoothing=smoothing), WEIGHTS)
    assert float(training_loss(logits, soft, Stage(label_smoothing=smoothing), WEIGHTS)) == pytest.approx(
        float(expected), rel=1e-5
    )


def test_a_mixed_picture_has_the_mixed_weight() -> None:
    logits, _ = logits_and_labels()
    target = torch.tensor([[0.75, 0.0, 0.25]])
    expected = (0.75 * 0.5 + 0.25 * 4.0) * F.cross_entropy(logits[:1], target)
    assert float(training_loss(logits[:1], target, Stage(), WEIGHTS)) == pytest.approx(float(expected))


def test_micro_batches_add_up_to_the_batch() -> None:
    logits, labels = logits_and_labels()
    halves = [training_loss(logits[k : k + 4], labels[k : k + 4], Stage(label_smoothing=0.1), WEIGHTS) for k in (0, 4)]
    assert float(sum(halves)) / 2 == pytest.approx(
        float(training_loss(logits, labels, Stage(label_smoothing=0.1), WEIGHTS))
    )
