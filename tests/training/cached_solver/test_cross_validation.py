"""New heads measured on pictures they were not solved on are those of scikit-learn, and luck decides nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from fixres.training.cached_solver.cross_validation import CrossValidated, cross_validate, solve_head

DECAYS = (1.0, 0.1, 0.01)


def clusters(num: int, width: int, num_classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(num, 8, generator=generator)
    labels = (hidden[:, :num_classes] + 0.5 * torch.randn(num, num_classes, generator=generator)).argmax(1)
    noise = torch.randn(num, width, generator=generator)
    return torch.relu(hidden @ torch.randn(8, width, generator=generator) * 0.3 + 0.5 * noise), labels


def reference(features: Tensor, labels: Tensor, is_train: np.ndarray, decay: float) -> np.ndarray:
    """Return scikit-learn's logits of all pictures, with mean 0 for each, from the same objective."""
    x, y = features.double().numpy(), labels.numpy()
    num_classes = len(np.unique(y))
    strength = 1 / (decay * x.var(0).mean() * is_train.sum())
    if num_classes == 2:
        strength *= 2
    model = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-10).fit(x[is_train], y[is_train])
    found: np.ndarray = model.decision_function(x)
    logits = np.stack([-found / 2, found / 2], 1) if num_classes == 2 else found
    return logits - logits.mean(1, keepdims=True)


def centred(logits: Tensor) -> np.ndarray:
    found: np.ndarray = (logits - logits.mean(1, keepdim=True)).numpy()
    return found


@pytest.mark.parametrize(("num", "width", "num_classes"), [(60, 80, 3), (300, 30, 4), (200, 20, 2)])
def test_the_heads_of_all_folds_are_those_of_scikit_learn(num: int, width: int, num_classes: int) -> None:
    features, labels = clusters(num, width, num_classes)
    found = cross_validate(features, labels, num_classes, decays=DECAYS)
    assert found.how == "cross-validated"
    for place, decay in enumerate(found.decays):
        logits = np.empty((num, num_classes))
        for fold in range(5):
            logits[found.folds == fold] = reference(features, labels, found.folds != fold, decay)[found.folds == fold]
        losses = nn.functional.cross_entropy(torch.from_numpy(logits), labels, reduction="none")
        assert found.losses[place].mean() == pytest.approx(float(losses.mean()), abs=3e-4)
        assert (found.correct[place] != (logits.argmax(1) == labels.numpy())).sum() <= 1
        if place == found.chosen:
            assert found.losses[place].mean() == pytest.approx(float(losses.mean()), abs=1e-4)
            np.testing.assert_allclose(centred(found.logits), logits, atol=1e-3)
    means = found.losses.mean(1)
    assert means[found.chosen] == means.min()


def test_equal_pictures_and_features_that_do_not_differ_change_nothing() -> None:
    features, labels = clusters(40, 50, 3)
    twice, labels = torch.cat([features, torch.full((40, 5), 7.0)], 1).repeat(2, 1), labels.repeat(2)
    found = cross_validate(twice, labels, 3, decays=(1.0,))
    logits = np.empty((80, 3))
    for fold in range(5):
        own = found.folds == fold
        logits[own] = reference(twice, labels, ~own, 1.0)[own]
    np.testing.assert_allclose(centred(found.logits), logits, atol=1e-3)


def test_what_is_held_out_is_measured_with_one_head_of_the_others() -> None:
    features, labels = clusters(240, 30, 3)
    held_out = np.arange(240) % 4 == 0
    found = cross_validate(features, labels, 3, held_out=held_out, decays=DECAYS)
    assert (found.how, found.places.tolist()) == ("held out", np.flatnonzero(held_out).tolist())
    logits = reference(features, labels, ~held_out, found.decay)[held_out]
    np.testing.assert_allclose(centred(found.logits), logits, atol=1e-3)


def test_the_head_of_all_pictures_is_that_of_scikit_learn() -> None:
    features, labels = clusters(150, 30, 3)
    head = solve_head(features, labels, 3, 0.1)
    logits = reference(features, labels, np.ones(150, dtype=bool), 0.1)
    np.testing.assert_allclose(centred(head.logits(features)), logits, atol=1e-3)


def test_labels_that_say_nothing_are_not_learnt() -> None:
    features, _ = clusters(200, 60, 3)
    labels = torch.randint(0, 2, (200,), generator=torch.Generator().manual_seed(1))
    found = cross_validate(features, labels, 2)
    assert found.losses[found.chosen].mean() == pytest.approx(np.log(2), abs=0.03)
    assert len(found.decays) < 6, "the path goes on though the loss rises"


def tempered_alone(found: CrossValidated, fold: int) -> float:
    """Return the mean loss of a fold at the temperature that suits it best, which it did not choose itself."""
    own = torch.from_numpy(found.folds == fold)
    labels = torch.from_numpy(found.labels)[own]
    return min(
        float(nn.functional.cross_entropy(found.logits[own] / temperature, labels))
        for temperature in np.geomspace(0.1, 10, 200)
    )


def test_a_temperature_mends_logits_that_are_too_sure_and_is_of_other_folds() -> None:
    features, labels = clusters(300, 30, 3)
    found = cross_validate(features, labels, 3, decays=(1e-3,))
    raw, tempered = found.losses[0], found.tempered_losses()
    assert tempered.mean() < raw.mean()
    for fold in range(5):
        assert tempered[found.folds == fold].mean() >= tempered_alone(found, fold) - 1e-6


def test_a_class_of_one_picture_is_never_held_out_and_one_of_two_is() -> None:
    features, labels = clusters(100, 20, 3)
    labels[:3] = torch.tensor([3, 4, 4])
    found = cross_validate(features, labels, 5, decays=DECAYS)
    assert found.places.tolist() == list(range(1, 100))
    assert found.folds[0] != found.folds[1]
    assert np.isfinite(found.losses).all()


def test_two_pictures_of_two_classes_cannot_be_cross_validated() -> None:
    with pytest.raises(ValueError, match="none of 2 pictures"):
        cross_validate(torch.randn(2, 4), torch.tensor([0, 1]), 2)


def test_it_ends_between_two_solutions() -> None:
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    features, labels = clusters(60, 10, 3)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(features, labels, 3, between=stop)
