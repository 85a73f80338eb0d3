"""Foreign weights, a foreign folder and a run of our own, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torchvision import models as torchvision_models

from fixres.config.loading import validate
from fixres.training.run import run_recipe
from tests.support.networks import scramble
from tests.support.shared_runs import require_untouched, shared_run


@pytest.fixture(scope="session")
def source() -> nn.Module:
    """Return torchvision's ResNet-18 for six classes, all of its values at random."""
    return scramble(torchvision_models.resnet18(num_classes=6), 1).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as timm writes it: three classes without names."""
    folder = tmp_path_factory.mktemp("pushed")
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=3), folder)
    return folder


@pytest.fixture
def run(shared_folder: Path) -> Iterator[Path]:
    """Yield a run of seven classes with a licence, a crop ratio of its own and a cached fix. To be read only."""
    recipe = validate(
        {
            "data": {"uri": "synthetic:classes=7,images=70,size=48", "workers": 0, "license": "CC0"},
            "model": {"name": "test_resnet"},
            "optim": {"lr": 0.02},
            "train": {"size": 32, "epochs": 1, "batch_size": 14},
            "fix": {"size": 64, "epochs": 1},
            "evaluation": {"batch_size": 16, "sizes": [32, 64], "crop_ratio": 0.9},
            "output": {"tracker": "none"},
            "runtime": {"threads": 1},
        }
    )
    made = shared_run(shared_folder, "product", lambda folder: run_recipe(recipe, folder))
    yield made
    require_untouched(made)
