"""`fixres data preview`: a contact sheet of what the network sees, in training and at every test size.

The training views come out of the loader itself, one for each of the first epochs, so they are the ones of a run with
the same recipe. All views have the same number of screen pixels per network pixel.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fixres.config.recipe import Recipe, Stage
from fixres.data.collections import Collection, open_collection
from fixres.data.decode import BadImage
from fixres.data.in_memory import can_hold
from fixres.data.loader import Batch, Draw, ReadPolicy, train_batches
from fixres.data.progressive_sizes import steps_per_epoch
from fixres.data.sampling import epoch_indices, num_epoch_samples, uniforms
from fixres.data.splits import Split
from fixres.data.transforms import evaluation_crop
from fixres.errors import UserError
from fixres.resolution import Preprocess
from fixres.training.initial_weights import starting_network

_GAP = 8
_LINE = 18
_SMALLEST_CELL = 96
_MAX_PIXELS = 100_000_000
_PAPER = "white"
_INK = "black"
_WRONG = "firebrick"
_LETTER = 7
"""Pixels of a letter, about."""


@dataclass(frozen=True)
class Preview:
    """The sheet, and what to say about it."""

    image: Image.Image
    notes: tuple[str, ...]


_Cell = Image.Image | str | None
"""A view; or why there is none, written in its place; None where an epoch does not show the picture, or it has none."""


def preview(recipe: Recipe, sizes: Sequence[int] = (), count: int = 8, views: int = 4) -> Preview:
    """Draw `count` training pictures: as they are, in the first `views` epochs of training, and at the test `sizes`.

    Left out, the sizes are those of the recipe's stages and of its evaluation.

    Raises:
        UserError: the collection cannot be opened, or the sheet would be too large.
        BadImage: no picture can be read.
    """
    collection = open_collection(recipe.data)
    index, stage = _training_stage(recipe)
    preprocess = _preprocess(recipe, collection)
    tests = tuple(sizes) or _recipe_sizes(recipe)
    split = collection.split("train")
    train = preprocess.at(int(stage.size))
    largest = max(train.size, *tests)
    zoom = max(1, -(-_SMALLEST_CELL // largest))
    epochs = range(min(views, stage.epochs))
    _refuse_large(largest * zoom, (1 + len(epochs) + len(tests), count))
    chosen, bad = _choose(split, count, recipe.seed)
    seen = _training_views(recipe, index, split, train, epochs, [picture for picture in chosen if picture not in bad])
    titles = ["picture", *(f"train {train.size} px, epoch {epoch + 1}" for epoch in epochs)]
    titles += [f"test {size} px" for size in tests]
    rows: list[tuple[str, Sequence[_Cell]]] = []
    for picture in chosen:
        name = split.classes[split.labels[picture]]
        if picture in bad:
            reason = bad[picture].reason.partition("\n")[0]
            rows.append((f"{name}   unreadable   {split.paths[picture]}", [reason, *[None] * (len(titles) - 1)]))
            continue
        image = split.read(picture, preprocess.exif, preprocess.alpha)
        # The picture itself as high as the largest view, and no wider.
        shown = image.copy()
        shown.thumbnail((largest * zoom, largest * zoom))
        drawn = [seen.get((epoch, picture)) for epoch in epochs]
        drawn += [_picture(evaluation_crop(image, preprocess.at(size))) for size in tests]
        cells = [shown, *(view and _zoomed(view, zoom) for view in drawn)]
        rows.append((f"{name}   {image.width} x {image.height}   {split.paths[picture]}", cells))
    notes = [
        f"training: {stage.crop} crop at {train.size} px, augment {stage.augment}",
        *(f"test: {preprocess.at(size).describe()}" for size in tests),
        *collection.notes_for(recipe),
    ]
    if bad:
        notes.append(f"{len(bad)} of the {len(chosen)} pictures drawn cannot be read: fixres data check names all")
    return Preview(_sheet(titles, rows, largest * zoom), tuple(notes))


def _training_stage(recipe: Recipe) -> tuple[int, Stage]:
    """Return the first stage of a fixed size that runs, and its place among those that run."""
    for index, stage in enumerate(recipe.run_stages):
        if stage.size != "auto":
            return index, stage
    raise UserError("no stage of the recipe trains at a size known beforehand\n  --recipe RECIPE with train.size N")


def _recipe_sizes(recipe: Recipe) -> tuple[int, ...]:
    stages = {int(stage.size) for stage in recipe.run_stages if stage.size != "auto"}
    return tuple(sorted(stages | set(recipe.evaluation.sizes)))


def _preprocess(recipe: Recipe, collection: Collection) -> Preprocess:
    """Return the test-time preprocessing of the recipe's network."""
    # Published weights say the same as their architecture does, and need not be fetched.
    weights = "none" if recipe.model.weights == "pretrained" else recipe.model.weights
    model = recipe.model.model_copy(update={"weights": weights})
    return starting_network(recipe.model_copy(update={"model": model}), collection).preprocess


def _choose(split: Split, count: int, seed: int) -> tuple[list[int], dict[int, BadImage]]:
    """Return up to `count` pictures, the classes in turn, and those of them that cannot be read."""
    order = np.argsort(uniforms(len(split), seed, len(split)), kind="stable")
    by_class = [order[split.labels[order] == label].tolist() for label in range(len(split.classes))]
    turns = itertools.zip_longest(*by_class)
    chosen = [picture for turn in turns for picture in turn if picture is not None][:count]
    bad: dict[int, BadImage] = {}
    for picture in chosen:
        try:
            split.read(picture)
        except BadImage as error:
            bad[picture] = error
    if len(bad) == len(chosen):
        raise BadImage(
            split.name,
            f"none of the {len(chosen)} pictures drawn can be read, the first is {bad[chosen[0]]}\n"
            "  fixres data check names all; --count draws more",
        )
    return chosen, bad


def _training_views(
    recipe: Recipe, index: int, split: Split, preprocess: Preprocess, epochs: range, chosen: Sequence[int]
) -> dict[tuple[int, int], Image.Image]:
    """Return the first view of every chosen picture in each of the first epochs, by (epoch, picture).

    What an epoch leaves out has no view.
    """
    stage, data = recipe.run_stages[index], recipe.data

    def read(stage: Stage, step: int) -> Generator[Batch]:
        policy = ReadPolicy(0, "skip", 1.0, data.decode, data.hold_gib)
        return train_batches(split, stage, preprocess, Draw(recipe.seed, index, step), policy)

    wanted = {(epoch, picture) for epoch in epochs for picture in chosen}
    found: dict[tuple[int, int], Image.Image] = {}
    if can_hold(len(split), stage, preprocess, data.hold_gib):
        # All of it is decoded before the first batch, so everything is taken from one pass.
        steps = steps_per_epoch(split, stage, "train" if index == 0 else "fix")
        with closing(read(stage, 0)) as batches:
            for step, batch in zip(range(len(epochs) * steps), batches, strict=False):
                for place, picture in enumerate(batch.indices.tolist()):
                    key = step // steps, picture
                    if key in wanted and key not in found:
                        found[key] = _picture(batch.images[place])
                if len(found) == len(wanted):
                    break
        return found
    # What a view looks like does not depend on the batch it is in, so the loader need read only this picture.
    alone = stage.model_copy(update={"batch_size": 1})
    num_samples = num_epoch_samples(len(split), stage.epoch_samples)
    for epoch in epochs:
        order = epoch_indices(split.labels, num_samples, stage.sampler, stage.repeats, recipe.seed, index, epoch)
        for picture in chosen:
            places = np.flatnonzero(order == picture)
            if len(places):
                with closing(read(alone, epoch * num_samples + int(places[0]))) as batches:
                    found[epoch, picture] = _picture(next(batches).images[0])
    return found


def _picture(view: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(view.permute(1, 2, 0).numpy()))


def _zoomed(image: Image.Image, zoom: int) -> Image.Image:
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


def _refuse_large(cell: int, shape: tuple[int, int]) -> None:
    columns, rows = shape
    width, height = columns * (cell + _GAP), rows * (cell + _GAP + _LINE)
    if width * height > _MAX_PIXELS:
        raise UserError(
            f"the sheet would have {width:,} x {height:,} pixels\n  use a smaller --count, fewer --views or --sizes"
        )


def _sheet(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[_Cell]]], cell: int) -> Image.Image:
    """Put the rows below each other, captions above, titles above the columns; cells are `cell` pixels high."""
    font = ImageFont.load_default(12)
    widths = [max(cell, int(font.getlength(title)) + 1) for title in titles]
    width = sum(widths) + _GAP * (len(widths) + 1)
    height = _LINE + len(rows) * (cell + _LINE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for y, (caption, cells) in enumerate(rows):
        top = _LINE + y * (cell + _LINE + _GAP)
        draw.text((_GAP, top), _printable(caption), fill=_INK, font=font)
        left = _GAP
        for title, each, column in zip(titles, cells, widths, strict=True):
            if y == 0:
                draw.text((left, 2), title, fill=_INK, font=font)
            if isinstance(each, Image.Image):
                sheet.paste(each, (left, top + _LINE))
            elif each:
                text = textwrap.fill(_printable(each), max(8, column // _LETTER))
                draw.multiline_text((left, top + _LINE), text, fill=_WRONG, font=font)
            left += column + _GAP
    return sheet


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text.encode("utf-8", "replace").decode())
