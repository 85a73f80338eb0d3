"""Run folders as a report reads them, and pages as a browser does."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fixres.config.defaults import complete
from fixres.config.recipe import Data
from fixres.config.yaml_text import dump
from fixres.data.collections import open_collection
from fixres.reporting.run_record import read_run

URI = "synthetic:classes=4,images=40,size=80"


CLASSES = ["0-disc", "1-square", "2-triangle", "3-ring"]


SIZES = (24, 32, 48)


def result(size: int, top1: float, **extra: Any) -> dict[str, Any]:
    """One row as the evaluation logs it."""
    return {
        "size": size,
        "resize_size": round(size / 0.875),
        "crop_ratio": 0.875,
        "interpolation": "bilinear",
        "top1": top1,
        "top1_ci95": [top1 - 4, min(100.0, top1 + 4)],
        "top5": None,
        "loss": 0.4,
        "ece": 0.03,
        "gmacs": size**2 / 10_000,
        "images_per_second": 200.0,
        **extra,
    }


def training_events(stage: str, index: int, num_epochs: int) -> list[dict[str, Any]]:
    """Two training lines and one evaluation for each epoch."""
    events: list[dict[str, Any]] = []
    for epoch in range(num_epochs):
        where = {"stage": stage, "stage_index": index}
        events += [
            {"event": "train", **where, "epoch": epoch + half, "loss": 1.0 / (1 + epoch + half), "lr": 0.1}
            for half in (0.5, 1.0)
        ]
        shown = [result(32, 60.0 + epoch)]
        events.append(
            {"event": "eval", **where, "epoch": epoch + 1, "split": "val", "weights": "raw", "results": shown}
        )
    return events


def fixed_events(ci95: tuple[float, float] = (0.5, 9.5)) -> list[dict[str, Any]]:
    """Events of a finished run with a fix."""
    confusion = [[9, 1, 0, 0], [0, 10, 0, 0], [3, 0, 7, 0], [0, 0, 0, 10]]
    sweep = {"split": "val", "num_images": 40}
    rows = [
        {"label": "train size", **result(32, 80.0, confusion=[[8, 2, 0, 0]] * 4)},
        {"label": "larger size only", **result(48, 83.0)},
        {"label": "fixed", **result(48, 85.0, confusion=confusion)},
    ]
    plan = {"moves": "head+stats", "tensors": ["fc.weight", "fc.bias"], "num_trained": 2052, "num_parameters": 11178564}
    return [
        {"event": "start", "classes": CLASSES, "notes": []},
        *training_events("train", 0, 3),
        {"event": "sweep", "label": "before", **sweep, "results": [result(s, 70.0 + s / 8) for s in SIZES]},
        {"event": "chosen", "size": 48, "why": "76.0 %, the best of 3 sizes"},
        *training_events("fix", 1, 1),
        {"event": "fix", "size": 48, "plan": {**plan, "live_norms": ["layer4.1.bn2"]}, "solver_seconds": 4.2},
        {"event": "sweep", "label": "fixed", **sweep, "results": [result(s, 68.0 + s / 4) for s in SIZES]},
        {
            "event": "comparison",
            "split": "test",
            "num_images": 40,
            "rows": rows,
            "paired": {"difference": 5.0, "ci95": list(ci95), "p_value": 0.03, "num_better": 4, "num_worse": 2},
        },
        {"event": "done", "seconds": 75.0},
    ]


def write_run(folder: Path, events: list[dict[str, Any]], seed: int = 0, **data: Any) -> Path:
    """A run folder with these events, a completed recipe and a product."""
    (folder / "model").mkdir(parents=True)
    asked = {"uri": URI, "license": "CC0", **data}
    recipe = complete({"seed": seed, "data": asked, "train": {"size": 32}, "fix": {"size": 48}})
    (folder / "recipe.yaml").write_text(dump(recipe))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    about = {"command": "fixres train my.yaml", "python": "3.11", "versions": {"torch": "2.15.0"}}
    (folder / "environment.json").write_text(json.dumps(about))
    product = {
        "label_names": CLASSES,
        "pretrained_cfg": {"interpolation": "bilinear"},
        "fixres": {"train_size": 32, "test_size": 48, "crop_ratio": 0.875, "resize": "shorter"},
    }
    (folder / "model" / "config.json").write_text(json.dumps(product))
    return folder


class Page(HTMLParser):
    """What a browser would fetch, see and read."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(self.html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "line", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("meta", "img", "br", "line", "path"):
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def decode(uri: str) -> torch.Tensor:
    """The pixels of a data: URI, [3, S, S]."""
    png = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return torch.from_numpy(np.array(Image.open(io.BytesIO(png)))).permute(2, 0, 1)


def answer(folder: Path, seed: int = 0, **columns: float) -> list[dict[str, Any]]:
    """Give a run of write_run a comparison.csv: mostly right, the wrong ones always called the next class."""
    chance = np.random.default_rng(seed)
    split = open_collection(read_data(folder)).split("test")
    rows = []
    for path, label in zip(split.paths, split.labels, strict=True):
        row: dict[str, Any] = {"path": path, "label": CLASSES[int(label)]}
        for name, share in {"train size": 0.7, "larger size only": 0.75, "fixed": 0.8, **columns}.items():
            is_right = chance.random() < share
            sure = float(chance.uniform(0.5, 1.0))
            row[name] = CLASSES[(int(label) + (not is_right)) % len(CLASSES)]
            row[f"{name} loss"] = round(float(-np.log(sure if is_right else (1 - sure) / 2 + 1e-6)), 6)
            row[f"{name} probability"] = round(sure, 6)
        rows.append(row)
    with (folder / "comparison.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, sorted(rows[0], key=lambda name: ("loss" in name, "probability" in name)))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def read_data(folder: Path) -> Data:
    """The data section of a run."""
    return Data.model_validate(read_run(folder).section("data"))
