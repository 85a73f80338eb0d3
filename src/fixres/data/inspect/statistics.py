"""`fixres data stats`: how many pictures of what size, their mean and spread, and what follows for a recipe."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from fixres.config.recipe import Data
from fixres.data.decode import BadImage
from fixres.data.evaluation_view import evaluation_view
from fixres.data.inspect.check import first_line, open_anyhow
from fixres.data.inspect.scan import each_picture
from fixres.data.sampling import inverse_frequency
from fixres.data.sources.folder import in_words
from fixres.data.splits import Split
from fixres.errors import on_one_line
from fixres.io.progress import Progress
from fixres.resolution import Preprocess, matching_size

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_MULTIPLE = 32
_MOST_CLASSES = 20


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counts, sizes and channel statistics of a collection, under the names they have in its JSON."""

    data: str
    classes: tuple[str, ...]
    num_images: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]
    """Readable pictures by split and class."""
    num_unreadable: int
    """Pictures that cannot be read, in all splits."""
    unreadable: Mapping[str, int]
    """Pictures by split that cannot be read; nothing below counts them."""
    imbalance: float
    """Pictures of the largest class for one of the smallest, in the training pictures."""
    class_weights: Mapping[str, float]
    """What `class_weights: auto` would make of the training pictures that can be read."""
    quantile_levels: tuple[float, ...] = QUANTILES
    quantiles: Mapping[str, tuple[float, ...]]
    """Width, height, short side, megapixels and aspect at `quantile_levels`, over all splits."""
    common_sizes: Mapping[str, int]
    extensions: Mapping[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_std_split: str
    mean_std_size: int
    train_size: int
    notes: tuple[str, ...] = ()

    def as_json(self) -> str:
        """Return everything as one JSON object."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def as_text(self) -> str:
        """Return tables and the lines a recipe can take over."""
        lines = [f"{self.data}: {len(self.classes):,} classes", *self.notes, *self._count_lines(), ""]
        lines.append(
            f"{'':<12}{''.join(f'{name:>9}' for name in ('min', '5 %', '25 %', 'median', '75 %', '95 %', 'max'))}"
        )
        for name, values in self.quantiles.items():
            whole = name in ("width", "height", "short side")
            lines.append(f"{name:<12}" + "".join(f"{value:>9.0f}" if whole else f"{value:>9.2f}" for value in values))
        lines.append("most common  " + ", ".join(f"{size} ({num:,})" for size, num in self.common_sizes.items()))
        kinds = ", ".join(f"{name or 'none'} {num:,}" for name, num in self.extensions.items())
        lines += [f"file types   {kinds}", ""]
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (self.mean, self.std))
        lines.append(f"mean [{mean}], std [{std}]")
        lines.append(
            f"  over every pixel of {self.mean_std_split}, short side resized to {self.mean_std_size} px, centre crop "
            f"(--model.mean {mean.replace(' ', '')} --model.std {std.replace(' ', '')})"
        )
        short = self.quantiles["short side"][QUANTILES.index(0.5)]
        lines.append(f"train size   up to {self.train_size} px (median short side {short:.0f} px)")
        lines.append(f"imbalance    {self.imbalance:.1f} to 1 in {self.mean_std_split}; class_weights: auto would be")
        lines.append("  " + _some([f"{name} {weight:.3g}" for name, weight in self.class_weights.items()]))
        return "".join(f"{line}\n" for line in lines)

    def _count_lines(self) -> list[str]:
        names = list(self.counts)
        shown = {name: on_one_line(name) for name in self.classes[:_MOST_CLASSES]}
        width = max(12, *(len(name) + 2 for name in shown.values()))
        lines = [f"{'':<{width}}" + "".join(f"{name:>9}" for name in names)]
        for cls, name in shown.items():
            lines.append(f"{name:<{width}}" + "".join(f"{self.counts[split].get(cls, 0):>9,}" for split in names))
        if len(self.classes) > _MOST_CLASSES:
            lines.append(f"... and {len(self.classes) - _MOST_CLASSES:,} more classes (--json FILE has all)")
        totals = "".join(f"{num:>9,}" for num in self.num_images.values())
        lines.append(f"{'pictures':<{width}}{totals}")
        if self.num_unreadable:
            bad = "".join(f"{num:>9,}" for num in self.unreadable.values())
            lines.append(f"{'unreadable':<{width}}{bad}   not counted: fixres data check names them")
        return lines


def statistics(data: Data, workers: int, size: int = 64, progress: Progress | None = None) -> Statistics:
    """Read every picture of a collection once. Mean and std are exact over the training pictures.

    They are of uint8 / 255 after the short side was resized to `size` px and the centre cut out, summed as integers.
    Pictures that cannot be read are counted and left out.

    Raises:
        UserError: there is nothing to look at, a reading process was ended, or nothing came for too long.
        BadImage: no picture can be read.
    """
    opened = open_anyhow(data)
    splits, training = opened.splits, opened.first.name
    sizes = {name: np.zeros((len(split), 2), dtype=np.int64) for name, split in splits.items()}
    sums = np.zeros((2, 3), dtype=np.int64)
    for name, place, found in each_picture(splits, partial(_measure, size), workers, progress):
        if isinstance(found, BadImage):
            continue
        sizes[name][place], more = found
        if name == training:
            sums += more
    readable = {name: found[:, 0] > 0 for name, found in sizes.items()}
    num_views = int(readable[training].sum())
    if not num_views:
        raise BadImage(opened.uri, f"none of the pictures of {training} can be read\n  fixres data check names them")
    known = np.concatenate([found[readable[name]] for name, found in sizes.items()])
    counts = {name: _counts(split, readable[name]) for name, split in splits.items()}
    own = np.array(list(counts[training].values()), dtype=np.int64)
    unreadable = {name: int((~able).sum()) for name, able in readable.items()}
    mean, std = _moments(sums, num_views * size**2)
    said = (*map(first_line, opened.faults), *opened.notes, *in_words(opened.ignored))
    notes = [f"note: {text}" for text in said]
    if opened.is_carved:
        notes.append(f"no splits of its own: shown as divided with data.split_seed {data.split_seed}")
    return Statistics(
        data=opened.uri,
        classes=tuple(dict.fromkeys(cls for split in (opened.first, *splits.values()) for cls in split.classes)),
        num_images={name: sum(found.values()) for name, found in counts.items()},
        counts=counts,
        num_unreadable=sum(unreadable.values()),
        unreadable=unreadable,
        imbalance=int(own.max()) / max(1, int(own.min())),
        class_weights=dict(zip(counts[training], inverse_frequency(own).tolist(), strict=True)),
        quantiles=_quantiles(known),
        common_sizes=dict(Counter(f"{w} x {h}" for w, h in known.tolist()).most_common(3)),
        extensions=_extensions(splits, readable),
        mean=mean,
        std=std,
        mean_std_split=training,
        mean_std_size=size,
        train_size=useful_train_size(float(np.median(known.min(axis=1)))),
        notes=tuple(notes),
    )


def _extensions(splits: Mapping[str, Split], readable: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, int]:
    paths = (split.paths[place] for name, split in splits.items() for place in np.flatnonzero(readable[name]).tolist())
    return dict(Counter(os.path.splitext(path)[1].lower() for path in paths).most_common())  # noqa: PTH122 - a Path is slow


def _measure(size: int, split: Split, place: int) -> tuple[tuple[int, int], npt.NDArray[np.int64]]:
    """Look at the test-time view of a picture at `size` px; raises BadImage.

    Returns:
        Width and height, and `[2, 3]` the sums of the values of every channel and of their squares: whole numbers, so
        the order of adding changes nothing.
    """
    image = split.read(place)
    view = np.asarray(evaluation_view(image, Preprocess(size=size, crop_ratio=1.0))).astype(np.int64)
    return image.size, np.stack([view.sum(axis=(0, 1)), (view**2).sum(axis=(0, 1))])


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


def _moments(sums: npt.NDArray[np.int64], num_pixels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of every channel in [0, 1], from exact integers."""
    totals, squares = sums.tolist()
    means = (total / num_pixels / 255 for total in totals)
    # n * sum of squares - square of the sum is exact in Python's integers; in floats it would cancel.
    stds = (
        (num_pixels * square - total**2) ** 0.5 / num_pixels / 255
        for total, square in zip(totals, squares, strict=True)
    )
    return tuple(means), tuple(stds)


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
