"""Pictures as the network sees them: a training crop, then the test crop at the train size and at the test size."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from fixres.config.recipe import Data, Stage
from fixres.data.collections import open_collection
from fixres.data.splits import Split
from fixres.data.transforms import evaluation_crop, train_crop
from fixres.errors import UserError
from fixres.reporting.number_format import percent
from fixres.reporting.run_record import Record
from fixres.resolution import Preprocess, apparent_ratio

NUM_PICTURES = 6
TRAINING_CROP_SEED = 0
MAX_BYTES = 40_000
"""Of one picture on a page about one run."""
_QUALITIES = (92, 80, 65)
_SMALLEST = 32


@dataclass(frozen=True)
class Picture:
    """One picture as a data: URI, its share of the column's width, and what stands below it."""

    uri: str
    alt: str
    width_percent: float
    truth: str = ""
    prediction: str = ""
    probability: str = ""
    is_right: bool | None = None


@dataclass(frozen=True)
class Row:
    """Pictures of one preprocessing, all drawn with the same number of screen pixels per network pixel."""

    title: str
    note: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """The rows, or the reason why there are none."""

    rows: tuple[Row, ...] = ()
    split: str = ""
    license: str = ""
    problem: str = ""

    @property
    def is_compressed(self) -> bool:
        """Whether a picture lost detail so that the page stays small."""
        return any(picture.uri.startswith("data:image/jpeg") for row in self.rows for picture in row.pictures)


def open_pictures(record: Record) -> Split | str:
    """Return the report split, read again from the collection of the recipe, or the reason why it cannot be read."""
    if not record.section("data").get("uri"):
        return "the recipe in the run folder names no collection"
    if record.train_size is None or record.test_size is None:
        return "the run folder does not say at which size the network was trained"
    saved = record.folder / "split.json"
    try:
        collection = open_collection(
            Data.model_validate(record.section("data")),
            split_file=saved if saved.is_file() else None,
            classes=record.classes or None,
        )
        return collection.split(record.comparison.split if record.comparison else collection.report)
    except (UserError, OSError, ValueError) as problem:
        return unreadable(problem)


def gallery(record: Record, opened: Split | str | None = None, max_bytes: int = MAX_BYTES) -> Gallery:
    """Return the pictures of a run's report split, as the network saw them in training and sees them at both sizes."""
    licence = str(record.section("data").get("license") or "")
    split = open_pictures(record) if opened is None else opened
    if isinstance(split, str):
        return Gallery(license=licence, problem=split)
    try:
        rows = _rows(record, split, _choose(record, split), max_bytes)
    except (UserError, OSError, ValueError) as problem:
        return Gallery(license=licence, problem=unreadable(problem))
    return Gallery(rows=rows, split=split.name, license=licence)


def as_tested(record: Record, split: Split, indices: Sequence[int], max_bytes: int = MAX_BYTES) -> list[Picture]:
    """Return pictures as the shipped network sees them.

    Raises:
        UserError: a picture cannot be read any more.
    """
    preprocess = preprocess_of(record, int(record.test_size or 0))
    crops = [evaluation_crop(split.read(index), preprocess) for index in indices]
    return list(_row("As tested", "", crops, preprocess.size, split, list(indices), max_bytes).pictures)


def unreadable(problem: Exception) -> str:
    """Return the reason why there are no pictures."""
    return f"they cannot be read any more: {str(problem).rstrip('.')}"


def _choose(record: Record, split: Split) -> list[int]:
    """Return indices of the predicted pictures, or of pictures spread over the classes."""
    index_of = {str(path): index for index, path in enumerate(split.paths)}
    predicted = [index_of[p["path"]] for p in record.predictions if p.get("path") in index_of]
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(split.labels):
        by_class.setdefault(int(label), []).append(index)
    turns = max((len(indices) for indices in by_class.values()), default=0)
    spread = [indices[turn] for turn in range(turns) for _, indices in sorted(by_class.items()) if turn < len(indices)]
    return list(dict.fromkeys(predicted + spread))[:NUM_PICTURES]


def _rows(record: Record, split: Split, indices: list[int], max_bytes: int) -> tuple[Row, ...]:
    train_size, test_size = int(record.train_size or 0), int(record.test_size or 0)
    images = [split.read(index) for index in indices]
    largest = max(train_size, test_size)
    before = preprocess_of(record, train_size)
    stage = _train_stage(record)
    rows = []
    if stage is not None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(TRAINING_CROP_SEED)
            crops = [train_crop(image, stage, before) for image in images]
        rows.append(_row("In training", _crop_note(stage), crops, largest, split, indices, max_bytes))
    for size in dict.fromkeys((train_size, test_size)):
        preprocess = before.at(size)
        crops = [evaluation_crop(image, preprocess) for image in images]
        role = "at the train size" if size == train_size else "at the test size"
        rows.append(_row(f"In testing, {role}", preprocess.describe(), crops, largest, split, indices, max_bytes))
    rows[-1] = _with_answers(record, rows[-1], split, indices)
    return tuple(rows)


def _crop_note(stage: Stage) -> str:
    if stage.crop != "random":
        return f"{stage.size} px, {stage.crop} crop"
    low, high = (round(100 * area) for area in stage.crop_scale)
    return f"{stage.size} px, random crop of {low} to {high} % of the area"


def preprocess_of(record: Record, size: int) -> Preprocess:
    """Return the preprocessing of the product, from its config.json and, where that is silent, the recipe."""
    evaluation, data = record.section("evaluation"), record.section("data")
    stored: dict[str, Any] = record.product.get("pretrained_cfg") or {}
    asked = evaluation.get("interpolation", "model")
    interpolation = stored.get("interpolation") if asked == "model" else asked
    return Preprocess(
        size=size,
        crop_ratio=float(record.fixres.get("crop_ratio") or evaluation.get("crop_ratio") or Preprocess.crop_ratio),
        resize=record.fixres.get("resize") or evaluation.get("resize") or "shorter",
        interpolation="bicubic" if interpolation == "bicubic" else "bilinear",
        exif=record.fixres.get("exif") or data.get("exif") or "apply",
        alpha=record.fixres.get("alpha") or data.get("alpha") or "white",
        exact=bool(record.fixres.get("exact", evaluation.get("exact"))),
    )


def apparent_size(record: Record) -> str:
    """Return the sentence on how large objects look in testing compared with training, the point of the method."""
    stage = _train_stage(record)
    if stage is None or record.train_size is None or record.test_size is None:
        return ""
    train = preprocess_of(record, record.train_size)
    ratios = [
        (size, apparent_ratio(train, stage.crop, stage.crop_scale, train.at(size)))
        for size in dict.fromkeys((record.train_size, record.test_size))
    ]
    told = ", and ".join(f"{ratio:.2f} times as large at {size} px" for size, ratio in ratios)
    return f"Compared with training, an average object looks {told} when the network is tested."


def _train_stage(record: Record) -> Stage | None:
    try:
        return Stage.model_validate({**record.first_stage, "size": record.train_size})
    except ValueError:
        return None


def _row(
    title: str, note: str, crops: list[torch.Tensor], largest: int, split: Split, indices: list[int], max_bytes: int
) -> Row:
    pictures = []
    for crop, index in zip(crops, indices, strict=True):
        alt = f"{title}: {split.paths[index]}, {split.classes[int(split.labels[index])]}"
        pictures.append(Picture(data_uri(crop, max_bytes), alt, round(100 * crop.shape[-1] / largest, 2)))
    return Row(title, note, tuple(pictures))


def _with_answers(record: Record, row: Row, split: Split, indices: list[int]) -> Row:
    predicted = {p["path"]: p["top"][0] for p in record.predictions if p.get("path") and p.get("top")}
    pictures = []
    for picture, index in zip(row.pictures, indices, strict=True):
        truth = str(split.classes[int(split.labels[index])])
        best = predicted.get(str(split.paths[index]))
        if best is None:
            pictures.append(replace(picture, truth=truth))
            continue
        name, probability = str(best["name"]), f"{percent(100 * float(best['probability']))} %"
        pictures.append(replace(picture, truth=truth, prediction=name, probability=probability, is_right=name == truth))
    return Row(row.title, row.note, tuple(pictures))


def data_uri(crop: torch.Tensor, max_bytes: int = MAX_BYTES) -> str:
    """Return a crop uint8 `[3, S, S]` as a data: URI of a PNG, or where that is longer than `max_bytes` of a JPEG.

    A JPEG that is still too long loses pixels: a page of few megabytes is worth more than the last detail.
    """
    image = Image.fromarray(crop.permute(1, 2, 0).contiguous().numpy())
    exact = _saved(image, "PNG", optimize=True)
    if len(exact) <= max_bytes:
        return _uri("png", exact)
    while True:
        for quality in _QUALITIES:
            content = _saved(image, "JPEG", quality=quality)
            if len(content) <= max_bytes or max(image.size) <= _SMALLEST:
                return _uri("jpeg", content)
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)), Image.Resampling.BOX)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
