"""Which size to test, to fix and to train at: theory, measurement, cost, and a sentence why."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fixres.checkpoints.product import Product
from fixres.config.loading import read_document, validate
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.config.recipe import Stage
from fixres.data.collections import Collection
from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.evaluation.eval_request import SplitRequest
from fixres.evaluation.evaluate import Evaluation, Reading, evaluate, network_views
from fixres.evaluation.measure import open_for
from fixres.evaluation.other_pictures import Column, columns_of
from fixres.experiments.questions import Question
from fixres.io.progress import NamedProgress
from fixres.models.moves import make_plan
from fixres.models.sizes import Offer, at_size, gmacs, offer_sizes, offer_train_size
from fixres.models.split_trunk import require_solvable
from fixres.resolution import Preprocess, apparent_ratio, choose_size, pareto_front, simulated_ratio
from fixres.runtime.cpus import resolve_workers
from fixres.runtime.device import Runtime
from fixres.training.cached_solver.solve import Problem, solve

HALVES_FROM = 2000
"""Pictures from which one half of the selecting split chooses and the other reports."""

_ASPECTS = 300


def advise(product: Product, question: Question, progress: NamedProgress = lambda *_: None) -> dict[str, Any]:
    """Return the object of `advise --json`: theory, rows, front, advice.

    Raises:
        UserError: no data, a size the network cannot take, or nothing within the budget.
    """
    collection = open_for(product, SplitRequest(data=question.data))
    runtime = Runtime(RuntimeSettings())
    model = runtime.place(product.model)
    reading = Reading(workers=resolve_workers("auto"))
    stage, known = _train_stage(product)
    train = product.preprocess.at(product.train_size)
    offer = offer_sizes(model, train, stage)
    theory = _theory(train, stage, _aspects(collection), offer) | {"crop_is_known": known}
    sizes = question.sizes or offer.sizes
    if question.serve_size is not None:
        sizes = tuple(sorted({*sizes, question.serve_size}))
    ratios = _ratios(product.preprocess, question.crop_ratios)
    _require_affordable(model, sizes, question.budget_gmacs)
    views = [replace(product.preprocess, size=size, crop_ratio=ratio) for size in sizes for ratio in ratios]
    choose, confirm, how = _roles(collection)
    others = {uri: open_for(product, SplitRequest(data=uri)) for uri in question.also}
    columns = columns_of({uri: one.split(one.report) for uri, one in others.items()}, question.corrupt, choose)
    means = _Means(choose, confirm, columns, runtime, reading, progress)
    rows = means.rows(model, "as it is", views)
    not_fixed = _why_not_fixed(model, collection, sizes) if question.fixed else None
    if question.fixed and not_fixed is None:
        own = [product.preprocess.at(size) for size in sizes]
        rows += _fixed_rows(model, own, collection.split("train"), means)
    front = pareto_front([row["gmacs"] for row in rows], [row["top1"] for row in rows])
    for place, row in enumerate(rows):
        row["on_front"] = place in front
    chosen, why = _choose(rows, question)
    own_view = [row for row in rows if row["network"] == "as it is" and row["crop_ratio"] == ratios[0]]
    auto = choose_size(*_measured(own_view), offer.matching)
    answer = {
        "model": product.architecture,
        "data": collection.uri,
        "split": collection.select,
        "num_images": len(choose),
        "halves": how,
        "theory": theory,
        "not_fixed": not_fixed,
        "speed_remarks": list(means.remarks),
        "advice": {**_brief(chosen), "why": why},
        "auto": {"size": auto[0], "why": auto[1]},
    }
    if columns:
        answer["also"] = [{"name": column.name, "num_images": len(column.split)} for column in columns]
    if question.serve_size is not None or question.budget_ms is not None:
        answer["train_size"] = _train_size(model, product.preprocess.at(chosen["size"]), stage, chosen, train.size)
    if confirm is not None:
        if "confirmed" not in chosen:
            p = replace(product.preprocess, size=chosen["size"], crop_ratio=chosen["crop_ratio"])
            chosen["confirmed"] = means.confirmed(model, p)
        answer["confirmed"] = {"num_images": len(confirm), "top1": chosen["confirmed"]}
    return answer | {"rows": [_brief(row) for row in rows]}


def evaluate_all(
    model: nn.Module,
    split: Split,
    preprocesses: Sequence[Preprocess],
    runtime: Runtime,
    reading: Reading,
    progress: NamedProgress,
) -> Evaluation:
    """Measure a network at every preprocessing, telling how far it is."""
    views = network_views(model, preprocesses)
    return evaluate(views, split, runtime, reading, lambda done, total: progress("measuring", done, total))


def _train_stage(product: Product) -> tuple[Stage, bool]:
    """Return how the product was cropped in training, and whether that is known or FixRes' default is taken."""
    path = product.home / "recipe.yaml" if product.home is not None else None
    is_known = path is not None and path.exists()
    raw = dict(read_document(path).values) if is_known and path is not None else {}
    recipe = validate({key: raw[key] for key in ("augment", "train", "stages") if key in raw})
    return recipe.train, is_known


def _aspects(collection: Collection) -> tuple[float, ...]:
    """Return width / height of some training pictures, evenly spaced."""
    split = collection.splits.get("train") or collection.split(collection.select)
    places = np.unique(np.linspace(0, len(split) - 1, min(_ASPECTS, len(split))).astype(int))
    pictures = (split.read(int(place)) for place in places)
    return tuple(picture.width / picture.height for picture in pictures)


def _theory(train: Preprocess, stage: Stage, aspects: Sequence[float], offer: Offer) -> dict[str, Any]:
    scale = stage.crop_scale
    ratio = apparent_ratio(train, stage.crop, scale, train)
    simulated = ratio
    if stage.crop == "random":
        simulated = simulated_ratio(train, scale, stage.crop_aspect, train, aspects)
    return {
        "train_size": train.size,
        "crop": stage.crop,
        "crop_scale": list(scale),
        "apparent_ratio": ratio,
        "alpha": 1 / ratio,
        "simulated_ratio": simulated,
        "num_aspects": len(aspects),
        "exact_matching_size": offer.exact,
        "matching_size": offer.matching,
    }


def _ratios(preprocess: Preprocess, asked: tuple[float, ...]) -> tuple[float, ...]:
    """Return the crop ratios to measure: one where nothing is cropped and all of them give the same.

    Raises:
        UserError: ratios were asked for, and nothing is cropped.
    """
    if preprocess.is_cropped:
        return asked or tuple(dict.fromkeys((preprocess.crop_ratio, 1.0)))
    if asked:
        raise UserError(
            f"--crop-ratios {','.join(f'{ratio:g}' for ratio in asked)}: resize {preprocess.resize} shows the whole "
            "picture, so no crop ratio changes anything\n  leave --crop-ratios out"
        )
    return (preprocess.crop_ratio,)


def _require_affordable(model: nn.Module, sizes: Sequence[int], budget_gmacs: float | None) -> None:
    """Refuse a budget below the work of every size, which is known before anything is measured.

    Raises:
        UserError: naming the cheapest size and its work.
    """
    if budget_gmacs is None:
        return
    least, size = min((gmacs(at_size(model, size), size), size) for size in sizes)
    if least > budget_gmacs:
        raise UserError(
            f"--budget-gmacs {budget_gmacs:g}: no size is within it\n"
            f"  the cheapest is {size} px: {least:.3g} GMACs; raise it, or name smaller sizes with --sizes"
        )


def _roles(collection: Collection) -> tuple[Split, Split | None, str]:
    """Return the pictures to choose on, those to confirm on, and a word on it.

    Where no split but the reported one has labels to choose by, it is halved however small it is: nothing else is left
    to report on.
    """
    choose, confirm = collection.select_and_report(halves_from=HALVES_FROM)
    how = "one half chooses, the other confirms"
    if confirm is None:
        how = "all of them, with the one-standard-error rule"
    elif collection.select == collection.report:
        how = f"there is no other split to report on, so {how}"
    return choose, confirm, how


def _why_not_fixed(model: nn.Module, collection: Collection, sizes: Sequence[int]) -> str | None:
    """Return why no head is solved, or None where one can be at every size."""
    if "train" not in collection.splits:
        return f"{collection.uri} has no split named train to solve a head on"
    if collection.select == "train":
        return f"{collection.uri} has no split but train, and a head would be measured on the pictures it is solved on"
    try:
        for size in sizes:
            own = at_size(model, size)
            require_solvable(own, make_plan(own, "auto", size), size)
    except UserError as error:
        # The second line is on a recipe's keys, which are no flags here.
        return str(error).partition("\n")[0] + "; fixres fix can do it by gradient descent"
    return None


@dataclass(frozen=True)
class _Means:
    """On what every network is measured, and how."""

    choose: Split
    confirm: Split | None
    columns: tuple[Column, ...]
    runtime: Runtime
    reading: Reading
    progress: NamedProgress
    speeds: dict[int, float] = field(default_factory=dict)
    """Milliseconds of one picture by size: one network has one speed, whatever its head and its crop."""
    remarks: dict[str, None] = field(default_factory=dict)
    """Why speeds are not to be trusted, in order, each once."""

    def rows(self, model: nn.Module, network: str, views: Sequence[Preprocess]) -> list[dict[str, Any]]:
        """Measure a network at every preprocessing and return a row for each."""
        found = evaluate_all(model, self.choose, views, self.runtime, self.reading, self.progress)
        seen, correct = network_views(model, views), found.correct()
        self.remarks.update(dict.fromkeys(found.speed_remarks))
        for result in found.results:
            rate = result["images_per_second"]
            self.speeds.setdefault(result["size"], 1000 / rate if rate else 0.0)
        also = [
            column.top1(seen, self.runtime, self.reading, partial(self.progress, f"measuring on {column.name}"))
            for column in self.columns
        ]
        return [
            {
                "network": network,
                "size": result["size"],
                "crop_ratio": result["crop_ratio"],
                "view": f"crop {view.crop_ratio:g}" if view.is_cropped else view.resize,
                "top1": result["top1"],
                "loss": result["loss"],
                "gmacs": result["gmacs"],
                "ms": self.speeds[result["size"]],
                "correct": correct[place],
                **({"also": [top1[place] for top1 in also]} if also else {}),
            }
            for place, (result, view) in enumerate(zip(found.results, views, strict=True))
        ]

    def confirmed(self, model: nn.Module, preprocess: Preprocess) -> float:
        """Return the top-1 accuracy, in percent, on the pictures that confirm."""
        assert self.confirm is not None
        views = [preprocess]
        found = evaluate_all(model, self.confirm, views, self.runtime, self.reading, self.progress)
        return float(found.results[0]["top1"])


def _fixed_rows(
    model: nn.Module,
    preprocesses: Sequence[Preprocess],
    train: Split,
    means: _Means,
) -> list[dict[str, Any]]:
    """Solve the head at every size on one view and measure it.

    A fixed network is not kept until one is chosen, so each is measured on the pictures that confirm as well.
    """
    runtime, reading, progress = means.runtime, means.reading, means.progress
    rows: list[dict[str, Any]] = []
    for p in preprocesses:
        own = copy.deepcopy(at_size(model, p.size))
        plan = make_plan(own, "auto", p.size)
        with tempfile.TemporaryDirectory() as cache:
            solve(
                Problem(
                    own, plan, train, means.choose, p, runtime, reading, Path(cache), num_views=1, progress=progress
                )
            )
        rows += means.rows(own, "fixed", [p])
        if means.confirm is not None:
            rows[-1]["confirmed"] = means.confirmed(own, p)
    return rows


def _choose(rows: Sequence[dict[str, Any]], question: Question) -> tuple[dict[str, Any], str]:
    """Return the row to use and why: the cheapest within one standard error of the best the budget allows."""
    within = [
        row
        for row in rows
        if (question.budget_gmacs is None or row["gmacs"] <= question.budget_gmacs)
        and (question.budget_ms is None or row["ms"] <= question.budget_ms)
        and (question.serve_size is None or row["size"] == question.serve_size)
    ]
    if not within:
        least = min(rows, key=lambda row: (row["size"] != question.serve_size, row["gmacs"]))
        raise UserError(
            f"nothing measured is within the budget\n  the cheapest is {least['size']} px: {least['gmacs']:.3f} GMACs, "
            f"{least['ms']:.1f} ms a picture; raise it, or name smaller sizes with --sizes"
        )
    # Places in the list stand for sizes, of which there may be several rows.
    place, why = choose_size(range(len(within)), *_measured(within)[1:])
    best = max(within, key=lambda row: row["top1"])
    if " px)" in why:
        why = f"{within[place]['top1']:.1f} %, within one standard error of the best ({_name(best)}) and cheaper"
    return within[place], why.replace(f"the best of {len(within)} sizes", f"the best of {len(within)} measured")


def _measured(rows: Sequence[dict[str, Any]]) -> tuple[list[int], np.ndarray, list[float]]:
    """Return the size, the correct pictures and the work of every row."""
    correct = np.stack([row["correct"] for row in rows])
    return [row["size"] for row in rows], correct, [row["gmacs"] for row in rows]


def _train_size(
    model: nn.Module, serve: Preprocess, stage: Stage, chosen: dict[str, Any], trained_at: int
) -> dict[str, Any]:
    """Return the size to train at for a network that is used at `serve.size`, and why."""
    exact, size = offer_train_size(model, serve, stage)
    why = (
        f"objects look as large in training at about {exact:.0f} px as in testing at {serve.size} px; trained at "
        f"{trained_at} px, this network is right there in {chosen['top1']:.1f} % ({chosen['network']})"
    )
    return {"serve_size": serve.size, "exact": exact, "size": size, "trained_at": trained_at, "why": why}


def _name(row: dict[str, Any]) -> str:
    return f"{row['top1']:.1f} %, {row['network']} at {row['size']} px, {row['view']}"


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("correct", "confirmed")}
