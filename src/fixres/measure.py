"""Measuring a product at its own data, size and conditions, and saying whether the logged number repeats."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fixres.config import Data
from fixres.config import Runtime as RuntimeSettings
from fixres.data.collections import Collection, Split, absolute_uri, open_collection
from fixres.data.decode import DECODER
from fixres.data.loader import OnBadImage, resolve_workers
from fixres.errors import UserError
from fixres.evaluate import Evaluation, Reading, conditions, evaluate
from fixres.product import Product
from fixres.runtime import Runtime

# The fields that say whether two results are the same; speed is not one of them.
_REPEATED = ("top1", "top5", "loss", "ece", "balanced_accuracy", "macro_f1")


@dataclass(frozen=True)
class Request:
    """What to measure. None and 0 mean: as the product says."""

    data: str | None = None
    split: str | None = None
    sizes: tuple[int, ...] = ()
    batch_size: int | None = None
    workers: int | None = None
    on_bad_image: OnBadImage = "error"
    device: str = "auto"


def open_for(product: Product, request: Request) -> Collection:
    """Open the collection to measure on, mapped onto the product's class list by name.

    Raises:
        UserError: no data given and none stored, or classes the product does not know.
    """
    stored = product.details.get("data", {})
    uri = request.data or stored.get("uri")
    if not uri:
        raise UserError(f"{product.source} does not say which data it is for\n  --data URI")
    data = Data(
        uri=uri,
        split_seed=stored.get("split_seed", 0),
        holdout=stored.get("holdout", 0.1),
        exif=product.preprocess.exif,
        alpha=product.preprocess.alpha,
    )
    classes = product.classes if product.has_names else None
    saved = own_split(product, request.data)
    is_own = _is_own(product, request.data)
    # Pictures the product was not made from are measured as they lie there: nothing of them need be set aside.
    collection = open_collection(data, saved, classes, for_training=is_own)
    if request.split and request.split not in collection.splits and {"train", "all"} & set(collection.splits):
        collection = open_collection(data, saved, classes)
    if classes is not None:
        return collection
    if len(collection.classes) != len(product.classes):
        raise UserError(
            f"{product.source} has {len(product.classes)} outputs without names, {collection.uri} has "
            f"{len(collection.classes)} classes"
        )
    note = "the weights name no classes: their outputs are taken to be the collection's classes in order"
    return replace(collection, notes=(*collection.notes, note))


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
    product: Product, request: Request, progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, Any], Evaluation, Split]:
    """Measure and return the object of `eval --json` (with "remarks" for people), the evaluation and its split.

    Raises:
        UserError: no such split, no such size, or pictures that cannot be read.
    """
    collection = open_for(product, request)
    split = collection.split(request.split or collection.report)
    logged = product.details.get("evaluation", {})
    own_device = request.device == "auto" and "threads" in logged
    settings = RuntimeSettings(
        device=request.device,
        threads=int(logged["threads"]) if own_device else 0,
        channels_last=bool(logged.get("channels_last", True)),
        precision=logged.get("precision", "auto") if own_device and logged.get("device") == "cpu" else "auto",
    )
    runtime = Runtime(settings)
    reading = Reading(
        batch_size=int(logged.get("batch_size", 64)) if request.batch_size is None else request.batch_size,
        workers=resolve_workers("auto" if request.workers is None else request.workers),
        on_bad_image=request.on_bad_image,
    )
    sizes = tuple(dict.fromkeys(request.sizes)) or (product.preprocess.size,)
    model = runtime.place(product.model)
    found = evaluate(model, split, [product.preprocess.at(size) for size in sizes], runtime, reading, progress)
    measured = conditions(split, found.num_images, reading.batch_size, runtime)
    answer = {
        "checkpoint": product.source,
        "model": product.architecture,
        "data": collection.uri,
        "split": split.name,
        "num_images": found.num_images,
        "num_classes": len(product.classes),
        "weights": product.weights,
        "decoder": DECODER,
        "resize": product.preprocess.resize,
        "conditions": measured,
        "num_bad_images": len(found.bad_images),
        "bad_images": found.bad_images,
        "results": found.results,
        "remarks": [*collection.notes, *_remarks(product, found.results, measured)],
    }
    return answer, found, split


def _remarks(product: Product, results: Sequence[dict[str, Any]], measured: dict[str, Any]) -> list[str]:
    """Say for every size whether a logged result was repeated, and warn where size or crop is not the product's."""
    remarks = []
    logged = {r["size"]: r for r in product.details.get("results", []) if r.get("split") == measured["split"]}
    stored = product.details.get("evaluation", {})
    different = [k for k, v in measured.items() if stored.get(k) != v]
    for result in results:
        size = result["size"]
        before = logged.get(size)
        if before is not None and product.weights != "before_fix":
            equal = all(before.get(key) == result[key] for key in _REPEATED)
            if equal:
                remarks.append(f"{size} px: repeats the logged result exactly ({result['top1']:.2f} %)")
            else:
                why = f"; other conditions: {', '.join(different)}" if different else ""
                remarks.append(
                    f"{size} px: {result['top1']:.4f} %, logged {before['top1']:.4f} %, loss {result['loss']:.6f}, "
                    f"logged {before['loss']:.6f}{why}"
                )
        elif size != product.preprocess.size and len(results) == 1:
            remarks.append(f"warning: {size} px is not the product's test size, {product.preprocess.size} px")
    if product.details and product.preprocess.resize != product.details.get("resize"):
        remarks.append(f"warning: resize {product.preprocess.resize} is not the product's, {product.details['resize']}")
    return remarks


def predictions_csv(found: Evaluation, split: Split, classes: Sequence[str]) -> str:
    """Return one CSV row per picture and size: path, label, size, prediction, probability."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "size", "prediction", "probability"])
    for row, result in enumerate(found.results):
        for column, index in enumerate(found.indices):
            writer.writerow(
                [
                    split.paths[int(index)],
                    classes[int(found.labels[column])],
                    result["size"],
                    classes[int(found.predictions[row, column])],
                    f"{found.probabilities[row, column]:.6f}",
                ]
            )
    return buffer.getvalue()
