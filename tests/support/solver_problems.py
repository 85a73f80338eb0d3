"""Problems for the cached solver, small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fixres.config.recipe import Data
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import open_collection
from fixres.evaluation.evaluate import Reading
from fixres.models.build import build_model
from fixres.models.moves import make_plan
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime
from fixres.training.cached_solver.solve import Problem

DATA = open_collection(Data(uri="synthetic:classes=3,images=60,size=56"))


def warm(name: str = "test_resnet", size: int = 48) -> nn.Module:
    """Return a network whose statistics are not those it was made with."""
    torch.manual_seed(0)
    model = build_model(name, 3)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, size, size))
    return model.eval()


def problem(model: nn.Module, cache: Path, moves: str = "auto", **changes: Any) -> Problem:
    settings = {
        "plan": make_plan(model, moves, 48),
        "train": DATA.split("train"),
        "select": DATA.split("val"),
        "preprocess": Preprocess(48),
        "runtime": Runtime(RuntimeSettings(device="cpu", threads=1)),
        "reading": Reading(8),
        "cache": cache,
    }
    return Problem(model, **{**settings, **changes})
