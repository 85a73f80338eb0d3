"""Losses against torch and timm, and parts of a batch that add up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy
from torch import Tensor

from fixres.config.stage import Stage
from fixres.training.losses import distillation_loss, training_loss

WEIGHTS = [0.25, 0.5, 2.0, 3.0]
NAMES = ["ce", "bce", "focal"]


def batch(num: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, 4, generator=generator), torch.randint(0, 4, (num,), generator=generator)


def soft(labels: Tensor, smoothing: float = 0.1) -> Tensor:
    """Return targets as timm's mixup makes them."""
    mixup = Mixup(mixup_alpha=1.0, prob=0.0, label_smoothing=smoothing, num_classes=4)
    mixed: Tensor = mixup(torch.zeros(len(labels), 3, 8, 8), labels)[1]
    return mixed


@pytest.mark.parametrize("threshold", [0.0, 0.2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bce_is_that_of_timm(smoothing: float, threshold: float) -> None:
    logits, labels = batch()
    theirs = BinaryCrossEntropy(smoothing, threshold or None)
    stage = Stage(loss="bce", loss_threshold=threshold, label_smoothing=smoothing)
    assert training_loss(logits, labels, stage) == pytest.approx(float(theirs(logits, labels)), rel=1e-6)
    targets = 0.6 * soft(labels) + 0.4 * soft(labels.flip(0))
    assert training_loss(logits, targets, stage) == pytest.approx(float(theirs(logits, targets)), rel=1e-6)


def test_focal_is_its_formula() -> None:
    logits, labels = batch()
    p = logits.softmax(1).gather(1, labels[:, None]).squeeze(1)
    expected = ((1 - p) ** 3 * -p.log()).mean()
    assert training_loss(logits, labels, Stage(loss="focal", loss_gamma=3.0)) == pytest.approx(
        float(expected), rel=1e-5
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_without_focus_is_cross_entropy(smoothing: float, weights: list[float] | None) -> None:
    logits, labels = batch()
    plain = Stage(label_smoothing=smoothing)
    unfocused = Stage(loss="focal", loss_gamma=0.0, label_smoothing=smoothing)
    for targets in (labels, soft(labels, smoothing)):
        focal = training_loss(logits, targets, unfocused, weights)
        assert focal == pytest.approx(float(training_loss(logits, targets, plain, weights)), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_has_a_gradient_where_the_network_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    training_loss(logits, torch.tensor([0, 0]), Stage(loss="focal", loss_gamma=gamma)).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0].abs().max() < 1e-6 < logits.grad[1].abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_the_soft_targets_of_mixup_agree(name: Any) -> None:
    logits, labels = batch()
    stage = Stage(loss=name, label_smoothing=0.1)
    for weights in (None, WEIGHTS):
        plain = training_loss(logits, labels, stage, weights)
        mixed = training_loss(logits, soft(labels), stage, weights)
        assert plain == pytest.approx(float(mixed), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_weight_multiplies_the_loss_of_its_pictures(name: Any) -> None:
    logits, labels = batch()
    stage = Stage(loss=name, label_smoothing=0.1)
    for picture in range(len(labels)):
        one = logits[picture : picture + 1], labels[picture : picture + 1]
        plain = training_loss(*one, stage)
        weighted = training_loss(*one, stage, WEIGHTS)
        assert weighted == pytest.approx(float(plain) * WEIGHTS[int(labels[picture])], rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), st.integers(1, 11), st.booleans(), st.booleans())
def test_parts_of_a_batch_add_up_to_the_whole(name: Any, cut: int, is_soft: bool, is_weighted: bool) -> None:
    logits, labels = batch(12)
    targets = soft(labels) if is_soft else labels
    weights = WEIGHTS if is_weighted else None
    stage = Stage(loss=name, label_smoothing=0.1)

    def loss(part: slice) -> float:
        return float(training_loss(logits[part], targets[part], stage, weights))

    parts = cut * loss(slice(0, cut)) + (12 - cut) * loss(slice(cut, 12))
    assert parts / 12 == pytest.approx(loss(slice(None)), rel=1e-5)


# --- a teacher


def test_a_teacher_of_the_same_opinion_teaches_nothing() -> None:
    logits, _ = batch()
    assert float(distillation_loss(logits, logits + 3.0, 2.0)) == pytest.approx(0.0, abs=1e-6)


def test_distillation_is_its_formula() -> None:
    (student, _), (teacher, _) = batch(seed=1), batch(seed=2)
    for t in (1.0, 4.0):
        p, q = (teacher / t).softmax(1), (student / t).softmax(1)
        expected = t**2 * (p * (p / q).log()).sum(1).mean()
        assert distillation_loss(student, teacher, t) == pytest.approx(float(expected), rel=1e-5)
    halves = [distillation_loss(student[k : k + 4], teacher[k : k + 4], 4.0) / 2 for k in (0, 4)]
    assert float(sum(halves)) == pytest.approx(float(distillation_loss(student, teacher, 4.0)), rel=1e-5)


def test_the_temperature_keeps_the_size_of_the_gradient_and_the_teacher_gets_none() -> None:
    sizes = []
    for t in (50.0, 100.0):
        student, teacher = batch(seed=1)[0].requires_grad_(), batch(seed=2)[0].requires_grad_()
        distillation_loss(student, teacher, t).backward()
        assert teacher.grad is None
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_a_student_learns_its_teacher() -> None:
    teacher, _ = batch()
    student = torch.zeros_like(teacher, requires_grad=True)
    optimizer = torch.optim.SGD([student], lr=4.0)
    for _ in range(200):
        optimizer.zero_grad()
        distillation_loss(student, teacher, 2.0).backward()
        optimizer.step()
    assert torch.equal(student.argmax(1), teacher.argmax(1))
    assert F.mse_loss(student.softmax(1), teacher.softmax(1)) < 1e-3
