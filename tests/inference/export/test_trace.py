"""The sizes a traced network takes."""

from __future__ import annotations

import pytest
import torch

from fixres.inference.export.trace import capture
from tests.support.products import make


def test_padding_by_the_input_becomes_constant_and_the_file_takes_multiples_of_32() -> None:
    found = capture(make("tf_mobilenetv3_small_minimal_100", 64), softmax=False, normalise=False)
    assert found.sizes.describe() == "heights and widths that are multiples of 32 from 32"
    images = torch.randn(2, 3, 96, 160)
    with torch.inference_mode():
        assert torch.equal(found.program.module()(images), found.eager(images))


def test_a_network_bound_to_one_size_is_exported_for_it_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixres.inference.export.trace.larger_size", lambda *_: None)
    found = capture(make("test_resnet"), softmax=False, normalise=False)
    assert found.sizes.describe() == "64 x 64 only"
    assert found.reason == "the architecture takes one size only"
