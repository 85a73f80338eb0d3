"""Multiply-adds are counted once for a network, and anew when it is another."""

from __future__ import annotations

import pytest

from fixres.models import sizes
from fixres.models.build import build_model, reset_head
from fixres.models.sizes import gmacs


def test_a_network_is_counted_once_at_each_size_until_its_shapes_change(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    count = sizes._count_gmacs

    def watched(model: object, size: int) -> float:
        counted.append(size)
        return count(model, size)  # type: ignore[arg-type]

    monkeypatch.setattr(sizes, "_count_gmacs", watched)
    model = build_model("test_resnet", 3)
    first = [gmacs(model, size) for size in (32, 64, 32)]
    assert counted == [32, 64]
    assert first[0] == first[2] < first[1]
    width = model.get_classifier().in_features
    reset_head(model, 1003)
    assert gmacs(model, 32) - first[0] == pytest.approx(1000 * width / 1e9)
    assert gmacs(build_model("test_resnet", 3), 32) == first[0]
    assert counted == [32, 64, 32, 32]
