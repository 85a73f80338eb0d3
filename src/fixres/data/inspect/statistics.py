"""`fixres data stats`: how many pictures of what size, their mean and spread, and what follows for a recipe."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fixres.config.recipe import Data
from fixres.data.decode import BadImage
from fixres.data.inspect.check import open_anyhow
from fixres.data.inspect.scan import in_chunks
from fixres.data.sampling import inverse_frequency
from fixres.data.splits import Split
from fixres.data.transforms import evaluation_crop
from fixres.io.progress import Progress
from fixres.resolution import Preprocess, matching_size

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_MULTIPLE = 32
_MOST_CLASSES = 20


class _Chunk(NamedTuple):
    """Sizes int64 `[N, 2]` (width, height; 0 for a picture that cannot be read), and sums per channel."""

    sizes: npt.NDArray[np.int64]
    sums: npt.NDArray[np.int64]
    squares: npt.NDArray[np.int64]
    extensions: Counter[str]


@dataclass(frozen=True)
class _Measure:
    """Sums the test-time view of each picture at `size` px; whole numbers, so the order of adding changes nothing."""

    size: int

    def __call__(self, split: Split, places: range) -> _Chunk:
        preprocess = Preprocess(size=self.size, crop_ratio=1.0)
        sizes = np.zeros((len(places), 2), dtype=np.int64)
        sums, squares = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
        extensions: Counter[str] = Counter()
        for row, place in enumerate(places):
            try:
                image = split.read(place)
            except BadImage:
                continue
            extensions[os.path.splitext(split.paths[place])[1].lower()] += 1  # noqa: PTH122 - a Path is slow
            sizes[row] = image.size
            view = evaluation_crop(image, preprocess).numpy().astype(np.int64)
            sums += view.sum(axis=(1, 2))
            squares += (view**2).sum(axis=(1, 2))
        return _Chunk(sizes, sums, squares, extensions)


@dataclass(frozen=True)
class Statistics:
    """Counts, sizes and channel statistics of a collection."""

    uri: str
    classes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    """Readable pictures by split and class."""
    unreadable: Mapping[str, int]
    """Pictures by split that cannot be read; nothing below counts them."""
    quantiles: Mapping[str, tuple[float, ...]]
    """Width, height, short side, megapixels and aspect at `QUANTILES`, over all splits."""
    common_sizes: tuple[tuple[str, int], ...]
    extensions: Mapping[str, int]
    size: int
    measured_on: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    train_size: int
    notes: tuple[str, ...] = ()

    @property
    def imbalance(self) -> float:
        """Pictures of the largest class for one of the smallest, in the training pictures."""
        counts = self._training_counts()
        return max(counts.values()) / max(1, min(counts.values()))

    @property
    def class_weights(self) -> dict[str, float]:
        """What `class_weights: auto` would make of the training pictures that can be read."""
        counts = self._training_counts()
        weights = inverse_frequency(np.array(list(counts.values()), dtype=np.int64)).tolist()
        return dict(zip(counts, weights, strict=True))

    @property
    def num_unreadable(self) -> int:
        """Pictures that cannot be read, in all splits."""
        return sum(self.unreadable.values())

    def _training_counts(self) -> Mapping[str, int]:
        return self.counts[self.measured_on]

    def as_json(self) -> str:
        """Return everything as one JSON object."""
        fields: dict[str, Any] = {
            "data": self.uri,
            "classes": list(self.classes),
            "num_images": {name: sum(counts.values()) for name, counts in self.counts.items()},
            "counts": {name: dict(counts) for name, counts in self.counts.items()},
            "num_unreadable": self.num_unreadable,
            "unreadable": dict(self.unreadable),
            "imbalance": self.imbalance,
            "class_weights": self.class_weights,
            "quantile_levels": QUANTILES,
            "quantiles": dict(self.quantiles),
            "common_sizes": dict(self.common_sizes),
            "extensions": dict(self.extensions),
            "mean": self.mean,
            "std": self.std,
            "mean_std_split": self.measured_on,
            "mean_std_size": self.size,
            "train_size": self.train_size,
            "notes": list(self.notes),
        }
        return json.dumps(fields, indent=2) + "\n"

    def as_text(self) -> str:
        """Return tables and the lines a recipe can take over."""
        lines = [f"{self.uri}: {len(self.classes):,} classes", *self.notes, *self._count_lines(), ""]
        lines.append(
            f"{'':<12}{''.join(f'{name:>9}' for name in ('min', '5 %', '25 %', 'median', '75 %', '95 %', 'max'))}"
        )
        for name, values in self.quantiles.items():
            whole = name in ("width", "height", "short side")
            lines.append(f"{name:<12}" + "".join(f"{value:>9.0f}" if whole else f"{value:>9.2f}" for value in values))
        lines.append("most common  " + ", ".join(f"{size} ({num:,})" for size, num in self.common_sizes))
        kinds = ", ".join(f"{name or 'none'} {num:,}" for name, num in self.extensions.items())
        lines += [f"file types   {kinds}", ""]
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (self.mean, self.std))
        lines.append(f"mean [{mean}], std [{std}]")
        lines.append(
            f"  over every pixel of {self.measured_on}, short side resized to {self.size} px, centre crop "
            f"(--model.mean {mean.replace(' ', '')} --model.std {std.replace(' ', '')})"
        )
        short = self.quantiles["short side"][QUANTILES.index(0.5)]
        lines.append(f"train size   up to {self.train_size} px (median short side {short:.0f} px)")
        lines.append(f"imbalance    {self.imbalance:.1f} to 1 in {self.measured_on}; class_weights: auto would be")
        lines.append("  " + _some([f"{name} {weight:.3g}" for name, weight in self.class_weights.items()]))
        return "".join(f"{line}\n" for line in lines)

    def _count_lines(self) -> list[str]:
        names = list(self.counts)
        width = max(12, *(len(name) + 2 for name in self.classes[:_MOST_CLASSES]))
        lines = [f"{'':<{width}}" + "".join(f"{name:>9}" for name in names)]
        for cls in self.classes[:_MOST_CLASSES]:
            lines.append(f"{cls:<{width}}" + "".join(f"{self.counts[name].get(cls, 0):>9,}" for name in names))
        if len(self.classes) > _MOST_CLASSES:
            lines.append(f"... and {len(self.classes) - _MOST_CLASSES:,} more classes (--json FILE has all)")
        totals = "".join(f"{sum(self.counts[name].values()):>9,}" for name in names)
        lines.append(f"{'pictures':<{width}}{totals}")
        if self.num_unreadable:
            bad = "".join(f"{self.unreadable[name]:>9,}" for name in names)
            lines.append(f"{'unreadable':<{width}}{bad}   not counted: fixres data check names them")
        return lines


def statistics(data: Data, workers: int, size: int = 64, progress: Progress | None = None) -> Statistics:
    """Read every picture of a collection once. Mean and std are exact over the training pictures.

    They are of uint8 / 255 after the short side was resized to `size` px and the centre cut out, summed as integers.
    Pictures that cannot be read are counted and left out.

    Raises:
        UserError: there is nothing to look at, or a reading process was killed.
        BadImage: no picture can be read.
    """
    opened = open_anyhow(data)
    training = opened.first.name
    sizes: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in opened.splits}
    sums, squares, num_views = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64), 0
    extensions: Counter[str] = Counter()
    for name, _, chunk in in_chunks(opened.splits, _Measure(size), workers, progress):
        sizes[name].append(chunk.sizes)
        extensions.update(chunk.extensions)
        if name == training:
            sums += chunk.sums
            squares += chunk.squares
            num_views += int((chunk.sizes[:, 0] > 0).sum())
    by_split = {name: np.concatenate([*parts, np.empty((0, 2), np.int64)]) for name, parts in sizes.items()}
    readable = {name: found[:, 0] > 0 for name, found in by_split.items()}
    known = np.concatenate([found[readable[name]] for name, found in by_split.items()])
    if not num_views:
        raise BadImage(opened.uri, f"none of the pictures of {training} can be read\n  fixres data check names them")
    mean, std = _moments(sums, squares, num_views * size**2)
    notes = (*(f"note: {note}" for note in (*opened.faults, *opened.all_notes)),)
    if opened.is_carved:
        notes = (*notes, f"no splits of its own: shown as carved with data.split_seed {data.split_seed}")
    return Statistics(
        uri=opened.uri,
        classes=tuple(dict.fromkeys(cls for split in (opened.first, *opened.splits.values()) for cls in split.classes)),
        counts={name: _counts(split, readable[name]) for name, split in opened.splits.items()},
        unreadable={name: int((~able).sum()) for name, able in readable.items()},
        quantiles=_quantiles(known),
        common_sizes=tuple(Counter(f"{w} x {h}" for w, h in known.tolist()).most_common(3)),
        extensions=dict(extensions.most_common()),
        size=size,
        measured_on=training,
        mean=mean,
        std=std,
        train_size=useful_train_size(float(np.median(known.min(axis=1)))),
        notes=notes,
    )


def _counts(split: Split, readable: npt.NDArray[np.bool_]) -> dict[str, int]:
    num = np.bincount(split.labels[readable], minlength=len(split.classes)).tolist()
    return dict(zip(split.classes, num, strict=True))


def useful_train_size(short_side: float) -> int:
    """Return the largest train size in pixels, a multiple of 32, at whose matching test size no picture is enlarged.

    `short_side` is that of the typical picture. Collections of tiny pictures get their own size.
    """
    best = 0
    for size in range(_MULTIPLE, int(short_side) + 1, _MULTIPLE):
        test = matching_size(Preprocess(size=size), "random", (0.08, 1.0), _MULTIPLE)
        if Preprocess(size=test).resize_size <= short_side:
            best = size
    return best or max(1, min(_MULTIPLE, int(short_side)))


def _moments(
    sums: npt.NDArray[np.int64], squares: npt.NDArray[np.int64], num_pixels: int
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation in [0, 1], from exact integers."""
    means = [int(total) / num_pixels / 255 for total in sums]
    # n * sum of squares - square of the sum is exact in Python's integers; in floats it would cancel.
    stds = [
        (num_pixels * int(square) - int(total) ** 2) ** 0.5 / num_pixels / 255
        for total, square in zip(sums, squares, strict=True)
    ]
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])


def _quantiles(sizes: npt.NDArray[np.int64]) -> dict[str, tuple[float, ...]]:
    width, height = sizes[:, 0], sizes[:, 1]
    columns = {
        "width": width,
        "height": height,
        "short side": sizes.min(axis=1),
        "megapixels": width * height / 1e6,
        "aspect w/h": width / height,
    }
    return {name: tuple(np.quantile(values, QUANTILES).tolist()) for name, values in columns.items()}


def _some(texts: Sequence[str], limit: int = 12) -> str:
    return ", ".join(texts[:limit]) + (f" and {len(texts) - limit} more" if len(texts) > limit else "")
