"""Weights of the classes in the loss: from the counts of the training split, or from a file by class name."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fixres.data.sampling import inverse_frequency, mean_one
from fixres.data.splits import Split
from fixres.errors import UserError, did_you_mean

_EXAMPLE = '  write JSON, {"cat": 1, "dog": 2.5}, or CSV with the columns class,weight'


def class_weights(setting: str, split: Split) -> tuple[float, ...] | None:
    """Return a weight for every class of `split`, in its order, with mean 1 over its pictures; None for "none".

    Args:
        setting: none, auto (inverse class frequency) or a JSON or CSV file of weights by class name, of which only the
            proportions count.
        split: the training split.

    Raises:
        UserError: the file cannot be read, leaves out a class, names an unknown one or holds a weight that is none.
    """
    if setting == "none":
        return None
    counts = split.counts()
    if setting == "auto":
        return tuple(inverse_frequency(counts).tolist())
    given = _read(setting)
    unknown = [name for name in given if name not in split.classes]
    if unknown:
        hint = did_you_mean(unknown[0], split.classes) or f"\n  classes: {_shortened(split.classes)}"
        raise UserError(f"{setting}: unknown class '{unknown[0]}'{hint}")
    missing = [name for name in split.classes if name not in given]
    if missing:
        raise UserError(f"{setting} has no weight for {_shortened(missing)}\n{_EXAMPLE}, with every class")
    weights = np.array([given[name] for name in split.classes])
    if not weights @ counts > 0:
        raise UserError(f"{setting}: all weights of the classes in '{split.name}' are 0, so nothing would be learnt")
    return tuple(mean_one(weights, counts).tolist())


def _read(file: str) -> dict[str, float]:
    """Return the weights by class name."""
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        hint = did_you_mean(file, ("none", "auto"))
        raise UserError(
            f"data.class_weights: no file '{file}'{hint}\n  give none, auto or a JSON or CSV file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.class_weights: cannot read '{file}': {error}") from None
    pairs = _from_json(text, file) if text.lstrip().startswith(("{", "[")) else _from_csv(text, file)
    found: dict[str, float] = {}
    for name, value in pairs:
        if name in found:
            raise UserError(f"{file}: class '{name}' is named twice")
        try:
            found[name] = float(str(value))
        except ValueError:
            found[name] = math.nan
        if isinstance(value, bool) or not 0 <= found[name] < math.inf:
            raise UserError(f"{file}: the weight of '{name}' must be a number of at least 0, not {value!r}")
    return found


def _from_json(text: str, file: str) -> list[tuple[str, object]]:
    try:
        # As pairs: a class that is named twice must not be silently the last one.
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON: {error}\n{_EXAMPLE}") from None
    if not all(isinstance(pair, tuple) for pair in pairs):
        raise UserError(f"{file} is a list, not weights by class name\n{_EXAMPLE}")
    return list(pairs)


def _from_csv(text: str, file: str) -> list[tuple[str, object]]:
    rows = csv.DictReader(io.StringIO(text))
    if not {"class", "weight"} <= set(rows.fieldnames or ()):
        raise UserError(f"{file} has the columns {_shortened(rows.fieldnames or ['(none)'])}\n{_EXAMPLE}")
    try:
        return [(row["class"], row["weight"]) for row in rows]
    except csv.Error as error:
        raise UserError(f"{file} is not CSV: {error}\n{_EXAMPLE}") from None


def _shortened(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
