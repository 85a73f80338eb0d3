"""Generated pictures: the same for the same seed, and such that something can be learnt."""

from __future__ import annotations

from typing import Any

import numpy as np

from fixres.data.splits import Split
from tests.support.opening import opened


def test_synthetic_is_deterministic_balanced_and_mixed_in_shape() -> None:
    collection = opened("synthetic:classes=4,images=40,size=32,seed=3")
    assert {name: split.counts().tolist() for name, split in collection.splits.items()} == {
        "train": [10] * 4,
        "val": [4, 3, 3, 3],
        "test": [4, 3, 3, 3],
    }
    train = collection.split("train")
    pictures = [train.read(k) for k in range(40)]
    again = opened("synthetic:classes=4,images=40,size=32,seed=3").split("train")
    assert all(np.array_equal(np.asarray(a), np.asarray(again.read(k))) for k, a in enumerate(pictures))
    other = opened("synthetic:classes=4,images=40,size=32,seed=4").split("train")
    assert any(not np.array_equal(np.asarray(a), np.asarray(other.read(k))) for k, a in enumerate(pictures))
    assert min(min(picture.size) for picture in pictures) == 32
    ratios = [picture.width / picture.height for picture in pictures]
    assert min(ratios) < 0.8
    assert max(ratios) > 1.2
    first = {np.asarray(collection.split(name).read(0)).tobytes() for name in collection.splits}
    assert len(first) == 3


def test_synthetic_can_be_learnt_from_its_colours() -> None:
    """The most saturated pixels belong to the object: nearest centroid of their colour already tells the classes."""

    def features(split: Split) -> np.ndarray[Any, Any]:
        found = []
        for k in range(len(split)):
            pixels = np.asarray(split.read(k)).reshape(-1, 3).astype(float)
            found.append(pixels[np.argsort(np.ptp(pixels, axis=1))[-40:]].mean(axis=0))
        return np.array(found)

    collection = opened("synthetic:classes=4,images=80")
    train, test = collection.split("train"), collection.split("test")
    known = features(train)
    centroids = np.array([known[train.labels == k].mean(axis=0) for k in range(4)])
    distance = ((features(test)[:, None] - centroids[None]) ** 2).sum(axis=2)
    assert (distance.argmin(axis=1) == test.labels).mean() > 0.9
