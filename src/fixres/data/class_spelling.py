"""Class names that look the same and are other bytes: é is one character to some systems and two to others."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fixres.data.splits import Split

_NAMED = 5


def one_spelling(splits: Mapping[str, Split], classes: Sequence[str] | None) -> tuple[dict[str, Split], list[str]]:
    """Return the splits with one spelling of every name that differs in its Unicode form only, and a note.

    That of `classes` counts, a checkpoint's; without them that of the first split, train before the others. A name that
    is there as it is stays as it is.
    """
    first = sorted(splits, key=lambda name: name not in ("train", "all"))
    known = dict.fromkeys(classes if classes is not None else ())
    spelling = {_form(name): name for name in reversed(known)}
    respelt: dict[str, tuple[str, ...]] = {}
    for split in first:
        for name in splits[split].classes:
            if name not in known and spelling.setdefault(_form(name), name) != name:
                respelt[split] = (*respelt.get(split, ()), name)
    notes = [
        f"{len(names)} class names of {split} differ in their Unicode form only and are taken for the others: "
        + ", ".join(names[:_NAMED])
        for split, names in respelt.items()
    ]
    return {
        name: _respell(split, spelling, set(respelt[name])) if name in respelt else split
        for name, split in splits.items()
    }, notes


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _respell(split: Split, spelling: Mapping[str, str], names: set[str]) -> Split:
    own = [spelling[_form(name)] if name in names else name for name in split.classes]
    classes = tuple(dict.fromkeys(own))
    place = {name: label for label, name in enumerate(classes)}
    table = np.array([place[name] for name in own], dtype=np.int64)
    return replace(split, classes=classes, labels=table[split.labels])
