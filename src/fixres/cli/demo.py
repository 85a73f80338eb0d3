"""`fixres demo`: the whole method on real photographs, with a report at the end."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fixres.checkpoints.resolve import load
from fixres.cli.commands.demo import DemoFlags
from fixres.cli.commands.train import numbered
from fixres.cli.console import Console
from fixres.config import loading
from fixres.config.recipe import Recipe
from fixres.data.collections import open_collection
from fixres.evaluation.results import Run
from fixres.inference.predict import Prediction, Predictor
from fixres.io.files import write_text
from fixres.models.sizes import at_size
from fixres.reporting.page import write_report
from fixres.runtime.device import Runtime
from fixres.training.initial_weights import starting_network
from fixres.training.optim import make_optimizer
from fixres.training.run import run_recipe
from fixres.training.size_choice import sweep_sizes

RECIPE = "elpv-demo"
_OTHER_SECONDS = 40
"""Start-up, workers, the predictions and the page."""


def run_demo(flags: DemoFlags) -> int:
    """Train small, measure against size, fix, report on the test split, predict, write the page."""
    started = time.perf_counter()
    console = Console(flags.quiet)
    recipe = loading.load(RECIPE, {"seed": flags.seed})
    folder = flags.out or numbered(Path("runs/demo"))
    console.say(
        "Defects in photographs of solar cells (ELPV, 2,624 pictures, CC BY-NC-SA):\n"
        "train small, measure accuracy against size, fix the end of the network at the chosen size, report."
    )
    console.say(f"This takes about {estimate_minutes(recipe):.0f} minutes on this machine.\n")
    with closing(console):
        outcome = run_recipe(recipe, folder, listeners=[console])
    predictions = predict_some(folder, outcome, recipe)
    for p in predictions:
        name, probability = p.top[0]
        console.say(f"  {p.path}: {name} ({100 * probability:.1f} %)")
    page = write_report([folder], folder / "report.html")
    minutes = (time.perf_counter() - started) / 60
    console.say(f"\n{minutes:.1f} minutes. Run folder: {folder}\nOpen the report: {page.resolve()}")
    return 0


def predict_some(folder: Path, outcome: Run, recipe: Recipe, count: int = 6) -> list[Prediction]:
    """Predict pictures spread over the report split with the saved product; write RUN/predictions.json."""
    product = load(folder)
    split = open_collection(recipe.data, folder / "split.json", product.classes).split(outcome.split)
    chosen = np.linspace(0, len(split) - 1, min(count, len(split))).astype(int)
    predictor = Predictor(product, Runtime(recipe.runtime))
    found = list(predictor(split.read(int(i)) for i in chosen))
    named = [replace(p, path=split.paths[int(i)]) for i, p in zip(chosen, found, strict=True)]
    labels = [product.classes[int(split.labels[i])] for i in chosen]
    rows = [{**p.as_dict(), "label": label} for p, label in zip(named, labels, strict=True)]
    write_text(folder / "predictions.json", json.dumps(rows, indent=2) + "\n")
    return named


def estimate_minutes(recipe: Recipe) -> float:
    """Return how long the recipe will take here, from timing one training step and a few forward passes."""
    collection = open_collection(recipe.data)
    model = starting_network(recipe, collection).model
    runtime = Runtime(recipe.runtime)
    model = runtime.place(model)
    num_train, num_val = len(collection.split("train")), len(collection.split(collection.select))
    train = recipe.train
    assert isinstance(train.size, int), "training stages have a size"
    optimizer = make_optimizer(model, recipe.optim, train)

    def step(size: int, learn: bool) -> float:
        images = runtime.images(torch.zeros(train.batch_size, 3, size, size))
        network = at_size(model, size).train(learn)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            with torch.set_grad_enabled(learn):
                loss = network(images).square().mean()
            if learn:
                loss.backward()
                optimizer.step()
            seconds.append(time.perf_counter() - start)
        return seconds[-1] / train.batch_size

    sizes = sweep_sizes(recipe.evaluation.sizes, train.size, recipe.fix.size)
    forward = {size: step(size, False) for size in sizes}
    largest = max(sizes)
    seconds = train.epochs * (num_train * step(train.size, True) + num_val * forward[train.size])
    seconds += 2 * num_val * sum(forward.values()) + 3 * num_val * forward[largest]
    if recipe.fix.enabled:
        solved = [largest, train.size] if recipe.evaluation.control else [largest]
        seconds += sum((recipe.fix.views * num_train + 2 * num_val) * forward[size] for size in solved)
    return max(1.0, (seconds + _OTHER_SECONDS) / 60)
