"""Pictures, folders and small trained runs shared by the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fixres.config.loading import validate
from fixres.config.recipe import Recipe

# One thread: small networks gain nothing from more, and spinning threads of parallel tests get in each other's way.
torch.set_num_threads(1)

TINY = "test_resnet"
"""timm's test network: 373 k parameters, BatchNorm at the end."""


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    """Return a function that completes a recipe for a small network on generated pictures."""

    def make(**sections: Any) -> Recipe:
        base: dict[str, Any] = {
            "data": {"uri": "synthetic:classes=3,images=48,size=48", "workers": 0},
            "model": {"name": TINY},
            "optim": {"lr": 0.02},
            "train": {"size": 32, "epochs": 2, "batch_size": 16},
            "evaluation": {"batch_size": 16},
            "output": {"tracker": "none"},
            "runtime": {"threads": 1},
        }
        for name, section in sections.items():
            base[name] = {**base.get(name, {}), **section} if isinstance(section, dict) else section
        return validate(base)

    return make


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of JPEGs of mixed shapes: two classes told apart by colour, train and val, no test."""
    generator = np.random.default_rng(0)
    root = tmp_path / "photos"
    for split, count in (("train", 12), ("val", 5)):
        for label, (name, channel) in enumerate((("red", 0), ("blue", 2))):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                shape = [(60, 90), (90, 60), (64, 64)][(i + label) % 3]
                pixels = generator.integers(0, 80, (*shape, 3), dtype=np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(folder / f"{i:02}.jpg", quality=92)
    return root
