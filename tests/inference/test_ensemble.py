"""Several sizes taken together: a mean of probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fixres.checkpoints.resolve import load
from fixres.evaluation.eval_request import SplitRequest
from fixres.inference.ensemble import mean_probabilities, measure_ensemble


def test_probabilities_are_averaged_not_logits() -> None:
    mean = mean_probabilities([torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 100.0]])])
    torch.testing.assert_close(mean, torch.tensor([[0.25, 0.75]], dtype=torch.float64))
    assert mean_probabilities([torch.tensor([[0.0, 2000.0]])]).min() > 0


def test_an_ensemble_is_the_mean_of_what_each_size_says(fixed_run: Path) -> None:
    product = load(str(fixed_run))
    answer = measure_ensemble(product, (32, 48), SplitRequest(workers=0))
    assert [r["size"] for r in answer["results"]] == [32, 48]
    assert answer["ensemble"]["sizes"] == [32, 48]
    assert answer["num_images"] == 16
    assert answer["ensemble"]["gmacs"] == pytest.approx(sum(r["gmacs"] for r in answer["results"]))
    same = measure_ensemble(product, (32, 48), SplitRequest(workers=0, batch_size=3))
    assert same["ensemble"]["top1"] == answer["ensemble"]["top1"]
    # The mean of probabilities pays no more loss than the worse size, whatever the network.
    assert answer["ensemble"]["loss"] <= max(r["loss"] for r in answer["results"])
