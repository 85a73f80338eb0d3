"""A data URI to a collection: splits, one class list by name, and the two roles of its splits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from urllib.parse import quote

import numpy as np

from fixres.config.recipe import Data, Recipe
from fixres.data.class_spelling import one_spelling
from fixres.data.sources.split_folders import one_level_down
from fixres.data.sources.table_folders import LabelTable, table_of_labels
from fixres.data.sources.table_rows import TABLES
from fixres.data.sources.tables import sorted_names
from fixres.data.sources.uri import Scheme
from fixres.data.splits import SPLIT_NAMES, THIRDS, Split, carve
from fixres.errors import UserError, as_text, did_you_mean

_SOURCES = ("folder", "tables", "torchvision", "hub", "shards", "elpv", "synthetic")
"""Modules of `data.sources`, imported when their turn comes: a folder needs none of the others."""
_REGISTERED: list[Scheme] = []
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?!//)")


class OtherClassesError(UserError):
    """The classes of a collection are none that a checkpoint knows."""


@dataclass(frozen=True, eq=False)
class Collection:
    """Labelled pictures under one class list. Sizes and checkpoints are chosen on `select`, results are on `report`."""

    uri: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    select: str
    report: str
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> Split:
        """Return the split of that name.

        Raises:
            UserError: the collection has no such split.
        """
        if name not in self.splits:
            raise UserError(
                f"{self.uri} has no split '{name}'{did_you_mean(name, self.splits)}\n"
                f"  allowed here: {', '.join(self.splits)}"
            )
        return self.splits[name]

    def notes_for(self, recipe: Recipe) -> list[str]:
        """Return the notes, of which a recipe that chooses nothing is not told where it would have chosen."""
        if recipe.chooses:
            return list(self.notes)
        chosen, nothing = _on_reported(self.report), "no validation split, and nothing is chosen"
        return [nothing if note == chosen else note for note in self.notes]

    def select_and_report(self, split: str | None = None, halves_from: int | None = None) -> tuple[Split, Split | None]:
        """Return the pictures to choose on and those to report on, which are never the same.

        These are the selecting split and the one to report on, `split` where one is named; where that is one split, its
        halves. With `halves_from` no other split is touched: the selecting one is halved, from that many pictures on
        unless results are on it too. Pictures that are too few to halve are all to choose on, and None to report on.

        Raises:
            UserError: there is no split of that name.
        """
        report = self.split(split or self.report)
        if halves_from is None and self.select not in (report.name, "train"):
            return self.split(self.select), report
        whole = report if halves_from is None else self.split(self.select)
        if len(whole) < (2 if halves_from is None or self.select == self.report else halves_from):
            return whole, None
        order, half = np.random.default_rng(0).permutation(len(whole)), len(whole) // 2
        first, second = (whole.take(whole.name, np.sort(part)) for part in (order[:half], order[half:]))
        return first, second


def open_collection(
    data: Data,
    split_file: Path | None = None,
    classes: Sequence[str] | None = None,
    *,
    for_training: bool = True,
) -> Collection:
    """Open the collection `data.uri` names.

    Args:
        data: which collection, and how its pictures are read.
        split_file: where a carved split is saved and, from then on, read back.
        classes: a checkpoint's, in place of the collection's own; splits are mapped onto it by name. Without it a
            collection to train on must have a training split.
        for_training: carve the splits that training lacks. Otherwise everything is as it lies there: one folder of
            classes is the split `all`, and there need be no training split.

    Raises:
        UserError: unknown scheme, missing or empty folder, classes that do not fit.
    """
    uri, splits, notes = open_splits(data)
    splits, respelt = one_spelling(splits, classes)
    notes += respelt
    if for_training and classes is None and not {"train", "all"} & set(splits):
        raise UserError(
            f"{uri} holds {' and '.join(splits)}, but no train\n  training needs a split named train; in a folder that "
            "is a folder train with one sub-folder per class"
        )
    names = tuple(classes) if classes is not None else _own_classes(splits)
    if unkept := name_not_kept(names):
        raise UserError(f"{as_text(uri)}: {unkept}")
    if len(names) < 2:
        advice = _one_level_down(uri) or "a classifier needs at least two"
        raise UserError(f"{uri} holds only one class ({', '.join(names)})\n  {advice}")
    if classes is None and all(name.lower() in SPLIT_NAMES for name in names):
        raise UserError(
            f"the classes of {uri} are called {', '.join(names)}, as splits are and classes are not\n"
            "  splits are train, val and test with the classes inside; of a table ?split= and ?label= name the columns"
        )
    _check_classes(uri, splits, names, from_checkpoint=classes is not None)
    if classes is None and (order := _surprising_order(names)):
        notes.append(order)
    splits = {name: _relabel(split, names) for name, split in splits.items()}
    if for_training:
        splits, select, report, carved = _roles(splits, data, split_file)
    else:
        select, report, carved = _select_of(splits), _report_of(splits), []
    for name, split in splits.items():
        missing = [cls for cls, count in zip(names, split.counts().tolist(), strict=True) if count == 0]
        if missing:
            notes.append(f"{len(missing)} of {len(names)} classes have no pictures in {name}: {_some(missing)}")
    return Collection(uri, names, splits, select, report, tuple(notes + carved))


def _own_classes(splits: Mapping[str, Split]) -> tuple[str, ...]:
    """Return the class list of the training split; without one, all names of all splits in their order."""
    for name in ("train", "all"):
        if name in splits:
            return splits[name].classes
    lists = [split.classes for split in splits.values()]
    together = {name for each in lists for name in each}
    longest = max(lists, key=len)
    if len(longest) == len(together):
        return longest
    as_text = all(list(each) == sorted(each) for each in lists)
    return tuple(sorted(together)) if as_text else sorted_names(together)


def absolute_uri(uri: str) -> str:
    """Return the URI with its paths made absolute, as a recipe stores it.

    Raises:
        UserError: it does not follow the grammar of its scheme.
    """
    scheme, body = _take_apart(uri.strip())
    if (table := _labelled(scheme, body)) is not None:
        return str(table.address)
    known = _find(scheme)
    if known is not None and known.grammar is not None:
        return str(known.parse(body))
    if scheme != "folder" or not body or (uri == body and not Path(uri).expanduser().is_dir()):
        return uri
    return f"folder:{Path(body).expanduser().absolute()}"


def name_not_kept(names: Sequence[str]) -> str:
    """Return what is wrong with a class name that a model cannot keep, and what to do; nothing where all can be."""
    bad = next((name for name in names if as_text(name) != name), None)
    if bad is None:
        return ""
    return f"the class '{as_text(bad)}' has a name that is no UTF-8, which a model cannot keep\n  rename its folder"


def differ_in_place_only(old: str, new: str) -> bool:
    """Return whether two URIs, as recipes store them, could name one collection that was moved."""
    (scheme, before), (other, now) = _take_apart(old), _take_apart(new)
    known = _find(scheme)
    if known is None or scheme != other:
        return False
    if known.grammar is None:
        return scheme == "folder"
    return known.without_places(before) == known.without_places(now)


def open_splits(data: Data) -> tuple[str, dict[str, Split], list[str]]:
    """Return the URI, the splits as they lie there, each under its own class list, and notes.

    Raises:
        UserError: unknown scheme, or nothing that can be opened there.
    """
    uri = data.uri.strip()
    if not uri:
        raise UserError("no data given\n  --data.uri folder:DIR (or elpv:, or synthetic:classes=4,images=64)")
    scheme, body = _take_apart(uri)
    table = _labelled(scheme, body)
    if table is not None:
        uri, splits, notes = open_splits(data.model_copy(update={"uri": str(table.address)}))
        return uri, splits, [table.note, *notes]
    known = _find(scheme)
    if known is None:
        hint = did_you_mean(scheme, [each.name for each in schemes()])
        allowed = ", ".join(each.usage for each in schemes())
        raise UserError(f"unknown kind of data '{scheme}:' in {uri}{hint}\n  allowed: {allowed}")
    return known.open(data, body)


def schemes() -> Iterator[Scheme]:
    """Yield the kinds of data there are, those that were registered last."""
    for name in _SOURCES:
        scheme: Scheme = import_module(f"fixres.data.sources.{name}").SCHEME
        yield scheme
    yield from _REGISTERED


def register_source(scheme: Scheme) -> None:
    """Make another kind of data known to this process.

    Raises:
        UserError: its name is taken, or cannot stand in a URI.
    """
    if _find(scheme.name) is not None:
        raise UserError(f"there is a kind of data '{scheme.name}:' already\n  give yours another name")
    if scheme.name != scheme.name.lower() or not _URI.fullmatch(f"{scheme.name}:"):
        raise UserError(
            f"'{scheme.name}' cannot name a kind of data\n"
            "  two or more of a-z, 0-9, '+', '.' and '-', of which the first is a letter"
        )
    _REGISTERED.append(scheme)


def _find(name: str) -> Scheme | None:
    return next((scheme for scheme in schemes() if scheme.name == name), None)


def _take_apart(uri: str) -> tuple[str, str]:
    """Return the scheme and what follows it; a bare path is a folder, or a table by its ending."""
    match = _URI.match(uri)
    if match is not None and not Path(uri).expanduser().is_dir():
        return match[1].lower(), uri[match.end() :]
    is_table = Path(uri).suffix.lower() in TABLES and Path(uri).expanduser().is_file()
    return ("csv", quote(uri)) if is_table else ("folder", uri)


def _labelled(scheme: str, body: str) -> LabelTable | None:
    """Return the table that labels the pictures of a folder, where it is no folder of classes."""
    folder = Path(body).expanduser().absolute()
    return table_of_labels(folder) if scheme == "folder" and body and folder.is_dir() else None


def _check_classes(uri: str, splits: Mapping[str, Split], names: tuple[str, ...], *, from_checkpoint: bool) -> None:
    known = set(names)
    for name, split in splits.items():
        unknown = [cls for cls in split.classes if cls not in known]
        if not unknown:
            continue
        where = uri if name == "all" else f"{name} of {uri}"
        hint = did_you_mean(unknown[0], names) if len(unknown) == 1 else ""
        if from_checkpoint:
            raise OtherClassesError(
                f"{where} holds classes the checkpoint does not know: {_some(unknown)}{hint}\n"
                f"  {_one_level_down(uri) or f'it knows {_some(names)}; rename or remove the others'}"
            )
        raise UserError(
            f"{where} holds classes that train does not have: {_some(unknown)}{hint}\n"
            f"  train has {_some(names)}; rename them, or add these classes to train"
        )


def _one_level_down(uri: str) -> str:
    scheme, _, folder = uri.partition(":")
    return one_level_down(Path(folder)) if scheme == "folder" else ""


def _some(names: Sequence[str], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _surprising_order(names: tuple[str, ...]) -> str:
    if not all(name.isdecimal() for name in names) or list(names) == sorted(names, key=int):
        return ""
    return f"class names are numbers and sort as text: label 0 is {names[0]}, then {_some(names[1:])}"


def _relabel(split: Split, names: tuple[str, ...]) -> Split:
    if split.classes == names:
        return split
    place = {cls: label for label, cls in enumerate(names)}
    table = np.array([place[cls] for cls in split.classes], dtype=np.int64)
    return replace(split, classes=names, labels=table[split.labels])


def _roles(
    splits: dict[str, Split], data: Data, split_file: Path | None
) -> tuple[dict[str, Split], str, str, list[str]]:
    """Return all splits, the selecting one, the reporting one and notes; carve what is missing out of train."""
    alone = splits.get("all") or (splits["train"] if set(splits) == {"train"} else None)
    if alone is not None:
        parts = carve(alone, THIRDS, data.split_seed, split_file)
        shares = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
        by = "class" if alone.subgroups is None else "class and subgroup"
        return (
            parts,
            "val",
            "test",
            [f"no splits of its own: divided at random, stratified by {by}, into {shares} pictures"],
        )
    if "holdout" in splits or {"val", "test"} <= set(splits):
        return splits, _select_of(splits), _report_of(splits), []
    report = _report_of(splits)
    carved = "val" if report == "test" else "holdout"
    if "train" not in splits or data.holdout == 0:
        return splits, report, report, [_on_reported(report)]
    fractions = {"train": 1 - data.holdout, carved: data.holdout}
    parts = carve(splits["train"], fractions, data.split_seed, split_file)
    num = f"{len(parts[carved])} of {len(splits['train'])} training pictures"
    note = f"{num} set aside at random as '{carved}', to choose epochs and sizes on"
    return {**parts, report: splits[report]}, carved, report, [note]


def _on_reported(report: str) -> str:
    return f"no validation split: epochs and sizes are selected on the reported set, {report}; its figures flatter"


def _select_of(splits: Mapping[str, Split]) -> str:
    """Return the split to choose on among those that are there, the reported one where there is no other."""
    others = [name for name in ("val", "holdout") if name in splits and name != _report_of(splits)]
    return others[0] if others else _report_of(splits)


def _report_of(splits: Mapping[str, Split]) -> str:
    return next(name for name in ("test", "val", "holdout", "all", "train") if name in splits)
