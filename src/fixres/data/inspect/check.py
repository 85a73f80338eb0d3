"""`fixres data check`: everything that would make a result wrong, found before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fixres.config.recipe import Data
from fixres.data.class_spelling import one_spelling
from fixres.data.collections import absolute_uri, name_not_kept, open_splits
from fixres.data.decode import LEFT_OUT, BadImage
from fixres.data.inspect.check_report import Place, Report
from fixres.data.inspect.near_duplicates import (
    BASELINE_PICTURES,
    HASH_LIMIT,
    agreement,
    close_pairs,
    copy_limit,
    detail,
)
from fixres.data.inspect.scan import FORMATS, TRAITS, Scanned, each_picture, scan, wrong_type
from fixres.data.sampling import uniforms
from fixres.data.sources.folder import Found, inspect_folder
from fixres.data.splits import THIRDS, Split, carve
from fixres.errors import UserError, counted, did_you_mean
from fixres.io.progress import Progress

LONG = 3.0
"""Aspect ratio from which a picture is called long."""

_KIND_OF_REASON = (
    ("empty", "empty"),
    ("truncated", "truncated"),
    ("cut short", "truncated"),
    ("not a picture", "not a picture"),
    ("pixels", "too large"),
    ("memory", "too large"),
    ("cannot be read", "unreadable"),
    ("holds no picture", "unreadable"),
    ("server", "unreadable"),
    ("takes longer", "too slow"),
    ("index", "unreadable"),
)


@dataclass
class Opened(Found):
    """A collection as far as it can be opened: splits under their own class lists, and what is to be said of it."""

    is_carved: bool = False

    @property
    def first(self) -> Split:
        """The split whose classes count: train, or the first there is."""
        return self.splits.get("train") or next(iter(self.splits.values()))


def open_anyhow(data: Data) -> Opened:
    """Open a collection without refusing what a check can report. One without splits is carved as for training.

    Raises:
        UserError: there is nothing to look at.
    """
    uri = absolute_uri(data.uri.strip())
    if uri.startswith("folder:"):
        opened = Opened(**vars(inspect_folder(data, uri.partition(":")[2])))
    else:
        opened = Opened(*open_splits(data))
    opened.splits, respelt = one_spelling(opened.splits, None)
    opened.notes += respelt
    if len(opened.splits) == 1 and set(opened.splits) <= {"all", "train"}:
        try:
            opened.splits = carve(opened.first, THIRDS, data.split_seed, None)
            opened.is_carved = True
        except UserError as error:
            opened.notes.append(first_line(error))
    return opened


def first_line(error: UserError) -> str:
    """Return what is wrong, without what to do about it."""
    return str(error).partition("\n")[0]


def check(
    data: Data,
    workers: int,
    sizes: Sequence[int] = (),
    crop_ratio: float = 0.875,
    train_size: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Decode every picture once and report what is wrong.

    `sizes` are test sizes in pixels, `crop_ratio` the test-time size / resize_size. Near-duplicates are looked for
    between splits only.

    Raises:
        UserError: there is nothing to look at, a reading process was ended, or nothing came for too long.
    """
    opened = open_anyhow(data)
    splits = opened.splits
    report = Report(opened.uri, {name: len(split) for name, split in splits.items()}, opened.first.classes)
    if opened.is_carved:
        report.remarks.append(f"no splits of its own: looked at as divided with data.split_seed {data.split_seed}")
    for fault in opened.faults:
        report.add("layout", first_line(fault))
    for note in opened.notes:
        report.add("passed over", note)
    for split, path, reason in opened.ignored:
        report.add("passed over", reason, Place(split, path, ""))
    _check_classes(opened, report)
    scanned = scan(splits, workers, progress)
    _check_files(scanned, report)
    _check_copies(scanned, report)
    _check_likeness(scanned, report, workers)
    _check_shapes(scanned, report, tuple(sizes) + ((train_size,) if train_size else ()), crop_ratio)
    return report


def _place(scanned: Scanned, row: int) -> Place:
    split, index = scanned.origin(row)
    return Place(split.name, split.paths[index], split.classes[split.labels[index]])


def _check_classes(opened: Opened, report: Report) -> None:
    own = opened.first
    if unkept := name_not_kept(own.classes):
        report.add("layout", unkept.split("\n")[0])
    if len(own.classes) < 2:
        report.add("layout", f"only one class ({own.classes[0]}); a classifier needs at least two")
    total: Counter[str] = Counter()
    for name, split in opened.splits.items():
        counts = dict(zip(split.classes, split.counts().tolist(), strict=True))
        if opened.is_carved or split is own:
            total.update(counts)
        for cls, count in counts.items():
            if cls not in own.classes:
                hint = did_you_mean(cls, own.classes)
                report.add("classes differ", f"{name}: {cls}, {counted(count, 'picture')}{hint}")
        for cls in own.classes:
            if not counts.get(cls):
                report.add("missing class", f"{name}: {cls}")
    for cls in own.classes:
        if total[cls] < 2:
            report.add("few pictures", f"{cls}, {total[cls]}")


def _check_files(scanned: Scanned, report: Report) -> None:
    facts = scanned.facts
    for row, error in scanned.bad.items():
        report.add(_kind_of(error), error.reason, _place(scanned, row))
    for row, flaw in scanned.flaws.items():
        kind = "metadata left out" if flaw.startswith(LEFT_OUT) else "damaged inside"
        report.add(kind, flaw.removeprefix(LEFT_OUT), _place(scanned, row))
    for row in np.flatnonzero(facts["readable"]).tolist():
        place = _place(scanned, row)
        is_really = wrong_type(place.path, int(facts["format"][row]))
        if is_really:
            report.add("wrong type", f"is {is_really}", place)
    for bit, trait in enumerate(TRAITS):
        for row in np.flatnonzero(facts["readable"] & (facts["traits"] >> bit & 1 > 0)).tolist():
            report.add(trait, "", _place(scanned, row))
    for row in np.flatnonzero(facts["flat"] & facts["readable"]).tolist():
        report.add("no contrast", "", _place(scanned, row))


def _kind_of(error: BadImage) -> str:
    return next((kind for word, kind in _KIND_OF_REASON if word in error.reason), "damaged")


def _check_copies(scanned: Scanned, report: Report) -> None:
    """Find pictures whose bytes are the same."""
    facts = scanned.facts
    kept = np.flatnonzero(facts["readable"])
    digest = facts["digest"][kept]
    order = kept[np.lexsort((kept, digest[:, 1], digest[:, 0]))]
    ordered = facts["digest"][order]
    starts = np.flatnonzero((ordered[1:] != ordered[:-1]).any(axis=1)) + 1
    for group in np.split(order, starts):
        if len(group) < 2:
            continue
        places = [_place(scanned, row) for row in group.tolist()]
        if len({place.label for place in places}) > 1:
            report.add("conflicting labels", ", ".join(dict.fromkeys(place.label for place in places)), *places)
        for later, place in enumerate(places[1:], 1):
            if place.split != places[0].split:
                report.add("leak", "", place, places[0])
            elif place.label in {other.label for other in places[:later]}:
                report.add("duplicate", "", place, places[0])


def _check_likeness(scanned: Scanned, report: Report, workers: int) -> None:
    """Find pictures that look like one of an earlier split and are not the same file."""
    facts = scanned.facts
    usable = scanned.by_split(np.flatnonzero(facts["readable"] & ~facts["flat"]))
    candidates: list[npt.NDArray[np.int64]] = []
    for place, later in enumerate(usable):
        for earlier in usable[:place]:
            found = close_pairs(facts["likeness"][earlier], facts["likeness"][later], HASH_LIMIT)
            pairs = np.stack([earlier[found[:, 0]], later[found[:, 1]]], axis=1)
            differ = (facts["digest"][pairs[:, 0]] != facts["digest"][pairs[:, 1]]).any(axis=1)
            candidates.append(pairs[differ])
    if not sum(map(len, candidates)):
        return
    order = np.argsort(uniforms(len(usable[0]), len(usable[0])), kind="stable")
    # Up to `BASELINE_PICTURES` of the first split, spread by chance.
    sample = np.sort(usable[0][order[:BASELINE_PICTURES]])
    rows = np.unique(np.concatenate([sample, *map(np.ravel, candidates)]))
    details = _details(scanned, rows, workers)
    limit = copy_limit(details[np.searchsorted(rows, sample)])
    report.measures["near_duplicate_limit"] = limit
    for pairs in candidates:
        alike = agreement(details, np.searchsorted(rows, pairs))
        # One picture can look like many; the most alike is reported.
        for pair in _best_per_query(pairs, alike, limit).tolist():
            first, second = pairs[pair].tolist()
            report.add("near-duplicate", f"{alike[pair]:.3f}", _place(scanned, second), _place(scanned, first))


def _best_per_query(
    pairs: npt.NDArray[np.int64], alike: npt.NDArray[np.float64], limit: float
) -> npt.NDArray[np.int64]:
    good = np.flatnonzero(alike >= limit)
    good = good[np.lexsort((pairs[good, 0], -alike[good], pairs[good, 1]))]
    return good[np.unique(pairs[good, 1], return_index=True)[1]]


def _details(scanned: Scanned, rows: npt.NDArray[np.int64], workers: int) -> npt.NDArray[np.float16]:
    """Read the pictures of some sorted rows again, at least one, and return their details."""
    own = zip(scanned.splits.items(), scanned.by_split(rows), scanned.starts, strict=True)
    parts = {name: split.take(name, found - start) for (name, split), found, start in own}
    return np.stack([_there(found) for _, _, found in each_picture(parts, _detail, workers)])


def _detail(split: Split, place: int) -> npt.NDArray[np.float16]:
    return detail(split.read(place))


def _there(found: npt.NDArray[np.float16] | BadImage) -> npt.NDArray[np.float16]:
    if isinstance(found, BadImage):
        raise found
    return found


def _check_shapes(scanned: Scanned, report: Report, sizes: tuple[int, ...], crop_ratio: float) -> None:
    facts = scanned.facts
    lost: list[npt.NDArray[np.float64]] = []
    for known in scanned.by_split(np.flatnonzero(facts["readable"])):
        sides = np.stack([facts["width"][known], facts["height"][known]], axis=1).astype(np.float64)
        aspect = sides.max(axis=1) / sides.min(axis=1)
        lost.append(1 - crop_ratio**2 / aspect)
        for row in np.argsort(-aspect, kind="stable"):
            if aspect[row] < LONG:
                break
            width, height = sides[row].astype(int)
            text = f"{width} x {height}, the crop throws away {lost[-1][row]:.0%}"
            report.add("extreme aspect", text, _place(scanned, int(known[row])))
        for size in sorted(set(sizes)):
            for row in np.flatnonzero(sides.min(axis=1) < size).tolist():
                text = f"short side {sides[row].min():.0f} < {size}"
                report.add("smaller than the size", text, _place(scanned, int(known[row])))
    share = np.concatenate(lost)
    if len(share):
        report.measures["mean_crop_loss_ratio"] = float(share.mean())
        report.remarks.append(
            f"the test crop (crop ratio {crop_ratio:g}, shorter side) throws away {share.mean():.1%} of the pixels on "
            f"average, at most {share.max():.1%}"
        )
    counts = np.bincount(facts["format"][facts["readable"]], minlength=len(FORMATS)).tolist()
    report.measures["formats"] = {name: count for name, count in zip(FORMATS, counts, strict=True) if count}
