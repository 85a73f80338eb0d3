"""A data URI to a collection: splits, one class list by name, and the two roles of its splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fixres.config import Data
from fixres.data.elpv import open_elpv
from fixres.data.folder import open_folder
from fixres.data.splits import THIRDS, Names, Split, carve
from fixres.data.synthetic import open_synthetic
from fixres.errors import UserError, did_you_mean

__all__ = ["Collection", "Names", "Split", "absolute_uri", "open_collection"]

_Opener = Callable[[Data, str], tuple[str, dict[str, Split], list[str]]]
_SCHEMES: dict[str, _Opener] = {"folder": open_folder, "elpv": open_elpv, "synthetic": open_synthetic}


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


def open_collection(data: Data, split_file: Path | None = None, classes: Sequence[str] | None = None) -> Collection:
    """Open the collection `data.uri` names.

    `split_file` is where a carved split is saved and, from then on, read back. `classes` (a checkpoint's) replaces the
    collection's own class list; splits are mapped onto it by name. Without it there must be a training split.

    Raises:
        UserError: unknown scheme, missing or empty folder, classes that do not fit.
    """
    uri, splits, notes = _open(data)
    if classes is None and not {"train", "all"} & set(splits):
        raise UserError(
            f"{uri} holds {' and '.join(splits)}, but no train\n  training needs a folder named train with one "
            "sub-folder per class"
        )
    names = tuple(classes) if classes is not None else (splits.get("train") or splits["all"]).classes
    if len(names) < 2:
        raise UserError(
            f"{uri} holds only one class ({', '.join(names)})\n  a classifier needs at least two class folders"
        )
    _check_classes(uri, splits, names, from_checkpoint=classes is not None)
    if classes is None and (order := _surprising_order(names)):
        notes.append(order)
    splits = {name: _relabel(split, names) for name, split in splits.items()}
    splits, select, report, carved = _roles(splits, data, split_file)
    for name, split in splits.items():
        missing = [cls for cls, count in zip(names, split.counts().tolist(), strict=True) if count == 0]
        if missing:
            notes.append(f"{len(missing)} of {len(names)} classes have no pictures in {name}: {_some(missing)}")
    return Collection(uri, names, splits, select, report, tuple(notes + carved))


def absolute_uri(uri: str) -> str:
    """Return a folder's URI with its path made absolute; any other URI as it is."""
    scheme, _, body = uri.partition(":")
    path = body if scheme == "folder" and body else uri
    if path == uri and not (uri and Path(uri).expanduser().is_dir()):
        return uri
    return f"folder:{Path(path).expanduser().absolute()}"


def _open(data: Data) -> tuple[str, dict[str, Split], list[str]]:
    uri = data.uri.strip()
    if not uri:
        raise UserError("no data given\n  --data.uri folder:DIR (or elpv:, or synthetic:classes=4,images=64)")
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(?!//)", uri)
    if match is None or Path(uri).expanduser().is_dir():
        return open_folder(data, uri)
    scheme, body = match[1], uri[match.end() :]
    if scheme.lower() not in _SCHEMES:
        raise UserError(
            f"unknown kind of data '{scheme}:' in {uri}{did_you_mean(scheme, _SCHEMES)}\n"
            "  allowed: folder:DIR or a bare path, elpv:, synthetic:classes=4,images=64"
        )
    return _SCHEMES[scheme.lower()](data, body)


def _check_classes(uri: str, splits: Mapping[str, Split], names: tuple[str, ...], *, from_checkpoint: bool) -> None:
    for name, split in splits.items():
        unknown = [cls for cls in split.classes if cls not in names]
        if not unknown:
            continue
        where = uri if name == "all" else f"{name} of {uri}"
        hint = did_you_mean(unknown[0], names) if len(unknown) == 1 else ""
        if from_checkpoint:
            raise UserError(
                f"{where} holds classes the checkpoint does not know: {_some(unknown)}{hint}\n"
                f"  it knows {_some(names)}; rename or remove the folders"
            )
        raise UserError(
            f"{where} holds classes that train does not have: {_some(unknown)}{hint}\n"
            f"  train has {_some(names)}; rename the folders, or add these classes to train"
        )


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
        return parts, "val", "test", [f"no splits of its own: carved, stratified by {by}, into {shares} pictures"]
    if {"val", "test"} <= set(splits):
        return splits, "val", "test", []
    report = "test" if "test" in splits else "val"
    carved = "val" if report == "test" else "holdout"
    if "train" not in splits or data.holdout == 0:
        return splits, report, report, [f"no split of its own to select on: selected on the reported set, {report}"]
    fractions = {"train": 1 - data.holdout, carved: data.holdout}
    parts = carve(splits["train"], fractions, data.split_seed, split_file)
    note = f"{len(parts[carved])} of {len(splits['train'])} training pictures carved out as '{carved}' to select on"
    return {**parts, report: splits[report]}, carved, report, [note]
