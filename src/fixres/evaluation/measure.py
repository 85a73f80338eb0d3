"""Measuring a product at its own data, size and conditions, and saying whether the logged number repeats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fixres.checkpoints.feeding import changed, differences
from fixres.checkpoints.product import Product
from fixres.config.choices import BackendName
from fixres.config.recipe import Data
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import Collection, OtherClassesError, absolute_uri, open_collection
from fixres.data.decode import DECODER
from fixres.data.splits import Split
from fixres.data.test_time_augmentation import View, parse_corruptions, views_at
from fixres.errors import UserError
from fixres.evaluation.eval_request import EvalRequest, SplitRequest
from fixres.evaluation.evaluate import Evaluation, NetworkView, Reading, conditions, evaluate
from fixres.evaluation.metrics import (
    METRICS,
    bootstrap_intervals,
    class_table,
    confusion_matrix,
    imbalance,
    paired_difference,
)
from fixres.evaluation.temperature_scaling import fit_temperature
from fixres.io.progress import Progress
from fixres.resolution import Preprocess
from fixres.runtime.cpus import resolve_workers
from fixres.runtime.device import Runtime

MAX_CONFUSION_CLASSES = 5000


class Measured(NamedTuple):
    """What `fixres eval` found."""

    answer: dict[str, Any]
    """The object of `eval --json`."""
    found: Evaluation
    split: Split
    remarks: tuple[str, ...]
    """What people are told about it; warnings begin with `warning: `."""


def open_for(product: Product, request: SplitRequest, split_of: Product | None = None) -> Collection:
    """Open the collection to measure on, mapped onto the product's class list by name.

    A carved split is that of the run `split_of`, the product itself when left out.

    Raises:
        UserError: no data given and none stored, or classes the product does not know.
    """
    owner = split_of or product
    data = _data_of(product, request, owner)
    classes = product.classes if product.has_names else None
    if product.are_names_assumed and not {*open_collection(data, for_training=False).classes} <= {*product.classes}:
        classes = None
    saved = own_split(owner, request.data)
    is_own = _is_own(owner, request.data)
    # Pictures the product was not made from are measured as they lie there: nothing of them need be set aside.
    collection = open_collection(data, saved, classes, for_training=is_own)
    if request.split and request.split not in collection.splits and {"train", "all"} & set(collection.splits):
        collection = open_collection(data, saved, classes)
    if classes is not None:
        return collection
    if len(collection.classes) != len(product.classes):
        raise OtherClassesError(
            f"{product.source} has {len(product.classes)} outputs without names, {collection.uri} has "
            f"{len(collection.classes)} classes"
        )
    note = "the weights name no classes: their outputs are taken to be the collection's classes in order"
    return replace(collection, notes=(*collection.notes, note))


def open_for_features(product: Product, request: SplitRequest) -> tuple[Collection, str]:
    """Open the collection to take features of: under the product's classes where it knows them, else under its own.

    Returns:
        The collection, and why its classes are none that the head knows; empty where they are.

    Raises:
        UserError: no data given and none stored.
    """
    why = "the weights have no classifier"
    if product.has_head:
        try:
            return open_for(product, request), ""
        except OtherClassesError as error:
            why = str(error).partition("\n")[0]
    data = _data_of(product, request, product)
    is_own = _is_own(product, request.data)
    collection = open_collection(data, own_split(product, request.data), for_training=is_own)
    if request.split and request.split not in collection.splits and {"train", "all"} & set(collection.splits):
        collection = open_collection(data, own_split(product, request.data))
    return collection, why


def _data_of(product: Product, request: SplitRequest, owner: Product) -> Data:
    """Return which pictures are asked for, and how they are read."""
    stored = owner.details.get("data", {})
    uri = request.data or stored.get("uri")
    if not uri:
        raise UserError(f"{product.source} does not say which data it is for\n  --data URI")
    return Data(
        uri=uri,
        split_seed=stored.get("split_seed", 0),
        holdout=stored.get("holdout", 0.1),
        exif=product.preprocess.exif,
        alpha=product.preprocess.alpha,
    )


def own_split(product: Product, uri: str | None) -> Path | None:
    """Return the split.json of the run the product belongs to, if `uri` is that run's collection."""
    if product.home is None:
        return None
    saved = product.home / "split.json"
    return saved if _is_own(product, uri) and saved.exists() else None


def _is_own(product: Product, uri: str | None) -> bool:
    """Return whether `uri` is the collection the product was made from."""
    return uri is None or absolute_uri(uri) == product.details.get("data", {}).get("uri")


def measure_product(
    product: Product, request: EvalRequest, progress: Progress | None = None, split_of: Product | None = None
) -> Measured:
    """Measure a product as `fixres eval` does; `split_of` see `open_for`.

    Raises:
        UserError: no such split, no such size, nothing to fit a temperature on, or pictures that cannot be read.
    """
    if request.confusion and len(product.classes) > MAX_CONFUSION_CLASSES:
        raise UserError(
            f"a confusion matrix of {len(product.classes):,} classes is too large\n"
            f"  allowed: {MAX_CONFUSION_CLASSES:,}; --per-class has no limit"
        )
    asked = changed(product.preprocess, request)
    collection = open_for(product, request, split_of)
    if product.are_names_assumed:
        product = replace(product, classes=collection.classes)
    split = collection.split(request.split or collection.report)
    if not len(split):
        raise UserError(f"the split '{split.name}' of {collection.uri} is empty\n  --split takes another one")
    runtime, reading = conditions_of(product, request, backend=request.backend)
    sizes = tuple(dict.fromkeys(request.sizes)) or (asked.size,)
    seen = views_at(asked, sizes, request.tta, parse_corruptions(request.corrupt))
    placed = replace(product, model=runtime.place(product.model))
    views = [replace(v, backend=request.backend) for v in product_views(placed, seen)]
    remarks = list(collection.notes)
    if "figures_of" in product.details and _is_own(product, request.data):
        remarks.append(
            "warning: this network was trained on these pictures, too (train --final): how many it gets right says "
            "nothing; figures of the run before are in its config.json"
        )
    if request.calibrate:
        views, note = _calibrated(views, collection, split, runtime, reading, progress)
        remarks.append(note)
    found = evaluate(views, split, runtime, reading, progress)
    _add_what_was_asked(found, request, product.classes)
    measured = conditions(split, found.num_images, reading.batch_size, runtime)
    if request.backend != "torch":
        measured["backend"] = request.backend
    answer = answer_of(product, collection, split, found) | {
        "decoder": DECODER,
        "resize": asked.resize,
        "backend": request.backend,
        "conditions": measured,
        "results": found.results,
    }
    remarks += [*_remarks(product, asked, found.results, measured), *found.speed_remarks]
    return Measured(answer, found, split, tuple(remarks))


def product_views(product: Product, preprocesses: Sequence[Preprocess]) -> list[NetworkView]:
    """Return a product with every preprocessing, made for each size once, with the size's own head where it has one.

    Raises:
        UserError: a size the network cannot take.
    """
    networks = {size: product.network_at(size) for size in dict.fromkeys(p.size for p in preprocesses)}
    return [NetworkView(networks[p.size], p) for p in preprocesses]


def answer_of(product: Product, collection: Collection, split: Split, found: Evaluation) -> dict[str, Any]:
    """Return what every object of `eval --json` says of its network and its pictures."""
    return {
        "checkpoint": product.source,
        "model": product.architecture,
        "data": collection.uri,
        "split": split.name,
        "num_images": found.num_images,
        "num_classes": len(product.classes),
        "imbalance": round(imbalance(split.counts()), 3),
        "weights": product.weights,
        "num_bad_images": len(found.bad_images),
        "bad_images": found.bad_images,
    }


def conditions_of(
    product: Product,
    request: SplitRequest,
    begun: Mapping[str, Any] | None = None,
    backend: BackendName = "torch",
) -> tuple[Runtime, Reading]:
    """Return device, threads, precision and batch the product was measured with, unless others are asked for.

    `begun`: the conditions of a work that goes on; they win over those of the product.

    Raises:
        UserError: another device than the CPU for a backend that has no other.
    """
    logged = product.details.get("evaluation", {})
    device = request.device
    if backend != "torch":
        if device not in ("auto", "cpu"):
            raise UserError(f"--backend {backend} computes on the CPU\n  leave --device {device} out")
        device = "cpu"
    kept = begun or (logged if request.device == "auto" and "threads" in logged else {})
    settings = RuntimeSettings(
        device=device,
        threads=int(kept.get("threads", 0)),
        channels_last=bool((begun or logged).get("channels_last", True)),
        precision=kept.get("precision", "auto") if kept.get("device") == "cpu" else "auto",
    )
    batch_size = request.batch_size or (begun or {}).get("batch_size") or logged.get("batch_size", 64)
    workers = resolve_workers("auto" if request.workers is None else request.workers)
    return Runtime(settings), Reading(int(batch_size), workers, request.on_bad_image)


def _calibrated(
    views: Sequence[NetworkView],
    collection: Collection,
    reported: Split,
    runtime: Runtime,
    reading: Reading,
    progress: Progress | None,
) -> tuple[list[NetworkView], str]:
    """Return the views with temperatures fitted on the selecting split, and what that was, for people."""
    select = collection.split(collection.select)
    note = f"temperatures fitted on {select.name}, n = {len(select):,}"
    if select.name == reported.name:
        note += "; warning: the split they are reported on"
    clean = [v for v in views if not (isinstance(v.preprocess, View) and v.preprocess.corruption)]
    found = evaluate(clean, select, runtime, reading, progress, keep_logits=True)
    assert found.logits is not None
    labels = torch.from_numpy(found.labels)
    fitted = {
        result["size"]: fit_temperature(torch.from_numpy(logits), labels)
        for result, logits in zip(found.results, found.logits, strict=True)
    }
    return [replace(view, temperature=fitted[view.preprocess.size]) for view in views], note


def _add_what_was_asked(found: Evaluation, request: EvalRequest, classes: Sequence[str]) -> None:
    for row, result in enumerate(found.results):
        predictions = found.outcomes[row].predictions
        if request.bootstrap:
            result["bootstrap_ci95"] = bootstrap_intervals(found.outcomes[row], request.bootstrap)
        if request.per_class:
            result["per_class"] = class_table(found.labels, predictions, classes)
        if request.confusion:
            result["confusion"] = confusion_matrix(found.labels, predictions, len(classes)).tolist()


def _remarks(
    product: Product, asked: Preprocess, results: Sequence[dict[str, Any]], measured: dict[str, Any]
) -> list[str]:
    """Say for every size whether a logged result was repeated, and warn where size or crop is not the product's."""
    own = product.preprocess
    remarks = [f"warning: {text}" for text in differences(own, asked)]
    if product.weights == "before_fix":
        remarks.append("warning: these are the weights from before the fix, not the product's")
    measured_sizes = dict.fromkeys(result["size"] for result in results)
    if product.heads:
        if product.train_size in measured_sizes and product.is_before_fix(product.train_size):
            remarks.append(f"{product.train_size} px is measured with the weights from before the fix")
    elif own.size not in measured_sizes:
        given = ", ".join(map(str, measured_sizes))
        remarks.append(f"warning: {given} px is not the product's test size, {own.size} px")
    is_refitted = "figures_of" in product.details
    if product.weights != "before_fix" and asked == own and not is_refitted:
        remarks += _repetitions(product, results, measured)
    return remarks


def _repetitions(product: Product, results: Sequence[dict[str, Any]], measured: dict[str, Any]) -> list[str]:
    """Say of every result that the product has logged whether it is the same."""
    logged = {r["size"]: r for r in product.details.get("results", []) if r.get("split") == measured["split"]}
    stored = product.details.get("evaluation", {})
    different = [k for k, v in measured.items() if stored.get(k) != v]
    remarks = []
    for result in results:
        size, before = result["size"], logged.get(result["size"])
        if before is None or result.get("corruption") or result.get("tta", "none") != "none":
            continue
        if all(_is_same(before[key], result[key]) for key in METRICS if key in before):
            remarks.append(f"{size} px: repeats the logged result exactly ({result['top1']:.2f} %)")
        else:
            why = f"; other conditions: {', '.join(different)}" if different else ""
            remarks.append(
                f"{size} px: {result['top1']:.4f} %, logged {before['top1']:.4f} %, loss {result['loss']:.6f}, "
                f"logged {before['loss']:.6f}{why}"
            )
    return remarks


def _is_same(logged: float | None, measured: float | None) -> bool:
    """Return whether two figures are equal, or differ by no more than the order of an addition makes."""
    if logged is None or measured is None:
        return logged is measured
    return math.isclose(logged, measured, rel_tol=0, abs_tol=1e-9)


def compare_products(
    product: Product, other: Product, request: EvalRequest, progress: Progress | None = None
) -> Measured:
    """Measure two products on the same pictures: `other` too, and a paired comparison in the first one's answer.

    Each is measured at its own test size unless sizes are given. The answer's "against" holds the other's checkpoint
    and, per result, "difference" (the first minus the other, points of top-1) with its 95 % interval, McNemar's exact
    p-value and the two counts behind it.

    Raises:
        UserError: see `measure_product`; or the two do not see the same pictures.
    """
    mine = measure_product(product, request, progress)
    theirs = measure_product(other, replace(request, data=mine.answer["data"]), progress, split_of=product)
    if mine.split.file_list_hash() != theirs.split.file_list_hash():
        raise UserError(f"{product.source} and {other.source} do not see the same pictures, or label them differently")
    if len(mine.found.indices) != len(theirs.found.indices):
        raise UserError("a picture could be read for one checkpoint and not for the other\n  start again")
    pairs = zip(theirs.found.correct(), mine.found.correct(), mine.found.results, theirs.found.results, strict=True)
    mine.answer["against"] = {
        "checkpoint": other.source,
        "results": theirs.found.results,
        "paired": [
            {"size": a["size"], "against_size": b["size"], **vars(paired_difference(before, after))}
            for before, after, a, b in pairs
        ],
    }
    return mine._replace(remarks=(*mine.remarks, *theirs.remarks))
