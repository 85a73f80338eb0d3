"""Every data set by name: its files, published checksums and counts, licence and page, from known_sets.json.

Checksums: those torchvision checks (CIFAR, MNIST, Fashion-MNIST, Caltech, ImageNet, Flowers, Pets, Food-101), those
on the data sets' own pages (FGVC-Aircraft, iNaturalist), or, where neither has one (CUB-200-2011, Tiny-ImageNet, the
first layout of Stanford Cars), those which independent projects agree on.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from fixres.data.prepare import arrays, imagenet, nature, photographs
from fixres.data.prepare.parts import DataSet
from fixres.errors import UserError, did_you_mean

# A row's "read" is the NAME of the function read_NAME in one of these.
_READERS = vars(arrays) | vars(imagenet) | vars(nature) | vars(photographs)
_ROWS = json.loads(Path(__file__).with_name("known_sets.json").read_text("utf-8"))
_ENTRIES = TypeAdapter(list[DataSet], config=ConfigDict(extra="forbid")).validate_python(
    [{**row, "read": _READERS[f"read_{row['read']}"]} for row in _ROWS]
)
SETS = {entry.name: entry for entry in _ENTRIES}
"""Every data set that can be prepared, by name."""


def find_set(name: str) -> DataSet:
    """Return the data set called `name`; case, '-' and '_' do not matter.

    Raises:
        UserError: there is none; lists those there are.
    """
    names = {known: entry for entry in SETS.values() for known in (entry.name, *entry.aliases)}
    folded = {_fold(known): entry for known, entry in names.items()}
    if _fold(name) in folded:
        return folded[_fold(name)]
    raise UserError(
        f"no data set is called '{name}'{did_you_mean(name, names)}\n"
        f"  allowed: {', '.join(SETS)}\n  your own pictures need no preparing: --data.uri folder:DIR"
    )


def _fold(name: str) -> str:
    return name.strip().lower().replace("-", "").replace("_", "")
