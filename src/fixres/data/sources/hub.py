"""`hf:NAME_OR_DIR[?image=&label=&config=&revision=]` - data sets of the Hugging Face hub, map-style, decoded by us."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fixres.config.recipe import Data
from fixres.data.decode import BadImage, read_file
from fixres.data.sources.tables import named_labels
from fixres.data.sources.uri import Address, Grammar, Scheme
from fixres.data.splits import SPLIT_NAMES, Encoded, Names, Split
from fixres.errors import UserError, did_you_mean, require_extra

_LABELS = ("label", "labels", "fine_label", "class", "category", "target")


@dataclass(frozen=True, eq=False)
class Rows(Encoded):
    """Pictures in the rows of a data set; row i is called `SPLIT/i`."""

    rows: Any
    column: str

    def read_bytes(self, path: str) -> bytes:
        """Return the picture's file as it is stored; raises BadImage."""
        try:
            cell = self.rows[int(path.rsplit("/", 1)[-1])][self.column]
            if cell is None:
                raise BadImage(path, "the row holds no picture")
            content: bytes = cell["bytes"] if cell["bytes"] is not None else read_file(cell["path"], path)
        except OSError as error:
            raise BadImage(path, f"cannot be read ({error.strerror or error})") from None
        return content

    def stamp(self, paths: Names) -> str:
        """Return the data set's own fingerprint, which follows from its files and every change made to them."""
        return f"{self.rows._fingerprint} {self.column}"


def open_hub(data: Data, body: str) -> tuple[str, dict[str, Split], list[str]]:
    """Return the URI, the splits (or `{"all": ...}`) and notes.

    Raises:
        UserError: the package is missing, the data set cannot be had, or has no column of pictures or labels.
    """
    address = SCHEME.parse(body)
    loaded = _load(address)
    notes: list[str] = []
    splits: dict[str, Split] = {}
    named = {name: SPLIT_NAMES.get(name.lower(), "") for name in loaded}
    if len(named) == 1 and not any(named.values()):
        named = dict.fromkeys(named, "all")
    ignored = sorted(name for name, split in named.items() if not split)
    if ignored:
        notes.append(f"not a split, ignored: {', '.join(ignored)} in {address}")
    order = ["all", *SPLIT_NAMES.values()]
    for name in sorted((name for name in named if named[name]), key=lambda name: order.index(named[name])):
        if named[name] in splits:
            raise UserError(
                f"{address} holds two splits that mean '{named[name]}'\n  its splits are {', '.join(named)}"
            )
        split = _split(named[name], loaded[name], address, data)
        if split is None:
            notes.append(f"{name} has no labels, left out")
            continue
        splits[named[name]] = split
    if not splits:
        raise UserError(f"{address} has no split with labels\n  its splits are {', '.join(named)}")
    return str(address), splits, notes


def _load(address: Address) -> dict[str, Any]:
    """Return split name -> rows, fetched where they are not on this disk."""
    try:
        import datasets
    except ImportError:
        raise require_extra("datasets", "hf") from None
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    is_folder = Path(address.body).is_dir()
    try:
        if is_folder and any((Path(address.body) / name).is_file() for name in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(address.body)
        else:
            found = datasets.load_dataset(
                address.body, address["config"] or None, revision=None if is_folder else address["revision"] or None
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        offline = datasets.config.HF_HUB_OFFLINE
        advice = (
            "HF_HUB_OFFLINE is set, so only what is in the cache can be had"
            if offline
            else "check the name (and ?config=), the network, and for private ones `hf auth login`"
        )
        raise UserError(f"{address} cannot be opened ({reason})\n  {advice}") from error
    return dict(found) if isinstance(found, dict) else {"all": found}


def _split(name: str, rows: Any, address: Address, data: Data) -> Split | None:
    import datasets

    image, label = _image_column(rows, address), _label_column(rows, address)
    feature = rows.features[label]
    column = rows.select_columns([label]).with_format("arrow")[:][label]
    if column.null_count == len(rows):
        return None
    if column.null_count:
        raise UserError(f"{address}: {column.null_count} of {len(rows)} rows of {name} have no {label}\n  remove them")
    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    if isinstance(feature, datasets.ClassLabel):
        classes, labels = tuple(feature.names), column.to_numpy().astype(np.int64)
        # The hub's way to keep the answers of a test split to itself.
        if len(labels) and (labels == -1).all():
            return None
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
            odd = int(labels[(labels < 0) | (labels >= len(classes))][0])
            raise UserError(f"{address}: {name} holds the label {odd}, outside its {len(classes)} classes\n  remove it")
    else:
        encoded = column.combine_chunks().dictionary_encode()
        texts = [str(value).strip() for value in encoded.dictionary.to_pylist()]
        classes, labels = named_labels(texts, encoded.indices.to_numpy())
    plain = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    paths = Names(f"{name}/{number:08}" for number in range(len(rows)))
    return Split(name, classes, labels, paths, Rows(plain, image), data.exif, data.alpha)


def _image_column(rows: Any, address: Address) -> str:
    import datasets

    images: list[str] = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    given = address["image"]
    if given and given in images:
        return given
    columns = _described(rows)
    if given:
        raise UserError(
            f"{address}: '{given}' is no column of pictures{did_you_mean(given, images)}\n  it has {columns}"
        )
    if not images:
        raise UserError(f"{address} has no column of pictures\n  it has {columns}")
    if len(images) > 1:
        raise UserError(f"{address} has several columns of pictures\n  choose one: ?image={' or ?image='.join(images)}")
    return images[0]


def _label_column(rows: Any, address: Address) -> str:
    import datasets

    given, features = address["label"], rows.features
    if given and given not in features:
        raise UserError(
            f"{address} has no column '{given}'{did_you_mean(given, features)}\n  it has {_described(rows)}"
        )
    named = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    usual = [name for name in _LABELS if name in features]
    candidates = [given] if given else named if len(named) == 1 else usual
    if len(candidates) != 1:
        raise UserError(
            f"{address}: which column holds the labels?\n  choose with ?label=NAME; it has {_described(rows)}"
        )
    chosen = candidates[0]
    feature = features[chosen]
    plain = ("int", "uint", "string", "large_string")
    is_plain = isinstance(feature, datasets.Value) and feature.dtype.startswith(plain)
    if not (is_plain or isinstance(feature, datasets.ClassLabel)):
        raise UserError(
            f"{address}: the column '{chosen}' holds no class labels\n"
            f"  choose with ?label=NAME; it has {_described(rows)}"
        )
    return chosen


def _described(rows: Any) -> str:
    kinds = {name: getattr(feature, "dtype", type(feature).__name__) for name, feature in rows.features.items()}
    return ", ".join(f"{name} ({type(rows.features[name]).__name__}, {kind})" for name, kind in kinds.items())


SCHEME = Scheme(
    "hf",
    "hf:NAME",
    "data sets of the Hugging Face hub, by name or from a folder on this disk",
    open_hub,
    Grammar("hf:NAME?image=image&label=label", ("image", "label", "config", "revision"), body="folder or name"),
)
