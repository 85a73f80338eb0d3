"""Pictures, folders and small trained runs shared by the tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from fixres.config.loading import validate
from fixres.config.recipe import Recipe
from fixres.training.cached_solver import logistic_head
from fixres.training.run import run_recipe
from tests.support.shared_runs import require_untouched, shared_run

# One thread: small networks gain nothing from more, and spinning threads of parallel tests get in each other's way.
torch.set_num_threads(1)

# An example that takes long tells of a busy machine, not of a mistake.
settings.register_profile("fixres", deadline=None)
settings.load_profile("fixres")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the demo, which takes longest, so that no process waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")


def pytest_collection_finish() -> None:
    """Keep what was imported and collected out of later garbage collections, which would go through all of it."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let libraries that look for what they leak at the end find nothing of ours."""
    gc.unfreeze()


TINY = "test_resnet"
"""timm's test network: 373 k parameters, BatchNorm at the end."""


def tiny_recipe(**sections: Any) -> Recipe:
    """Return a complete recipe for a small network on generated pictures, with `sections` changed."""
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


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    """Return a function that completes a recipe for a small network on generated pictures."""
    return tiny_recipe


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the one folder that all workers of this test run share."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared"


@pytest.fixture
def trained_run(shared_folder: Path) -> Iterator[Path]:
    """Yield a finished run of `make_recipe()`: trained at 32 px, not fixed. To be read, never written."""
    run = shared_run(shared_folder, "trained", lambda folder: run_recipe(tiny_recipe(), folder))
    yield run
    require_untouched(run)


@pytest.fixture
def other_seed_run(shared_folder: Path) -> Iterator[Path]:
    """Yield a finished run like `trained_run` from another seed. To be read, never written."""
    run = shared_run(shared_folder, "other-seed", lambda folder: run_recipe(tiny_recipe(seed=1), folder))
    yield run
    require_untouched(run)


@pytest.fixture
def fixed_run(shared_folder: Path) -> Iterator[Path]:
    """Yield a finished run trained at 32 px and fixed at 48 by SGD. To be read, never written."""
    fix = {"size": 48, "epochs": 1, "batch_size": 16, "solver": "sgd"}
    run = shared_run(shared_folder, "fixed", lambda folder: run_recipe(tiny_recipe(fix=fix), folder))
    yield run
    require_untouched(run)


@pytest.fixture
def few_decays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the cached solver stop at strong pulls, for tests of everything but how well it solves."""
    monkeypatch.setattr(logistic_head, "DECAYS", (1.0, 0.1))


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
