"""Folders as competitions hand them out: a table of labels beside folders of pictures that are no classes.

train.csv              image_id,label       the table that fits; its pictures are the collection
train_images/          0001.jpg ...         no class folders
test_images/           no labels, not taken
sample_submission.csv  not taken
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fixres.data.picture_walk import pictures_below
from fixres.data.sources.picture_names import PictureNames
from fixres.data.sources.split_folders import folders_in, recognise
from fixres.data.sources.table_columns import EVERY_CLASS, IMAGE, LABEL, Columns, find_columns, image_column
from fixres.data.sources.table_rows import TABLES, column_names, first_rows
from fixres.data.sources.uri import Address
from fixres.errors import UserError

_SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
_SPLIT_WORDS |= {"test": "test", "testing": "test", "eval": "val", "dev": "val"}
_STORE_WORDS = frozenset(
    [
        *("image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos"),
        *("jpg", "jpeg", "jpegs", "png", "data", "dataset", "input"),
    ]
)
_PART_WORDS = frozenset(("part", "parts", "set", "stage", "all", "resized", "small", "full", "v"))
"""What may stand beside these, and says no class either."""
_SUBMISSION = re.compile(r"submi(t|ssion)", re.IGNORECASE)
_SAMPLE = 50
_MANY = 0.5
"""Share of the first names that have to be there, for a table to be that of a folder."""


@dataclass(frozen=True)
class LabelTable:
    """A table that says what the pictures of a folder are."""

    address: Address
    note: str
    """What was taken and what was not, for people."""


@dataclass(frozen=True)
class _Fitting:
    """A table whose pictures lie in a folder."""

    table: Path
    columns: Columns
    places: tuple[Path, ...]
    """Folders that the names can count from; more than one is for people to choose from."""

    def addresses(self) -> list[Address]:
        """Return what names the collection, one address for every place."""
        columns, own = self.columns, self.table.parent
        said = {"image": columns.image, "label": EVERY_CLASS if columns.classes else columns.label}
        said = {key: name for key, name in said.items() if name not in (IMAGE, LABEL)}
        roots: list[dict[str, str]] = [{} if place == own else {"root": str(place)} for place in self.places]
        return [Address("csv", str(self.table), {**root, **said}) for root in roots]


def table_of_labels(root: Path) -> LabelTable | None:
    """Return the table that labels the pictures of a folder without class folders; None where there is none.

    Raises:
        UserError: several would do.
    """
    tables = tables_in(root)
    if not tables or not _can_be_stores(root) or _has_classes(root):
        return None
    names = PictureNames(root)
    fitting = [found for table in tables if (found := _fitting(table, names)) is not None]
    addresses = [address for found in fitting for address in found.addresses()]
    if not addresses:
        return None
    if len(addresses) > 1:
        what = "table of labels" if len(fitting) > 1 else "folder of pictures"
        listed = "\n  ".join(str(address) for address in addresses)
        raise UserError(f"{root} has more than one {what} that fits; name one:\n  {listed}")
    return LabelTable(addresses[0], _note(root, fitting[0], addresses[0]))


def address_of_pictures(table: Path) -> Address:
    """Return where a table's pictures are, labels or not: those of `test.csv` and of a submission in the folder test.

    A table with a column `path` counts from its own folder.
    """
    image = image_column(table)
    if image == IMAGE:
        return Address("csv", str(table), {})
    names = PictureNames(table.parent)
    sample = [row[image] for row in first_rows(table, [image], _SAMPLE)] if image in column_names(table) else []
    found = {name: files for name in dict.fromkeys(sample) if (files := _files(names, name))}
    wanted = "test" if _SUBMISSION.search(table.stem) else split_word(table.stem)
    places = _places(wanted, table.parent, found) if found else ()
    root = {"root": str(places[0])} if len(places) == 1 and places[0] != table.parent else {}
    return Address("csv", str(table), {**root, "image": image})


def tables_in(folder: Path) -> list[Path]:
    """Return the tables of a folder that can hold labels, sorted: forms of submissions are none."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in TABLES and not path.name.startswith(".") and not _SUBMISSION.search(path.stem)
    )


def is_store(name: str) -> bool:
    """Return whether a folder's name says that it holds pictures, or those of a split, and not of which class."""
    words = _words(name)
    return bool(words) and all(word in _SPLIT_WORDS or word in _STORE_WORDS or word in _PART_WORDS for word in words)


def split_word(name: str) -> str:
    """Return the split a name speaks of, as `train_images` and `trainLabels` do; empty where it speaks of none."""
    return next((_SPLIT_WORDS[word] for word in _words(name) if word in _SPLIT_WORDS), "")


def stores_taken_for_classes(root: Path, with_pictures: Mapping[str, str]) -> UserError | None:
    """Return the error for folders that would be classes and are called as folders of pictures are; None elsewhere.

    `with_pictures` has the first picture of each.
    """
    names = list(with_pictures)
    if not names or not all(map(is_store, names)) or (len(names) > 1 and not any(map(split_word, names))):
        return None
    flat = [name for name, path in with_pictures.items() if path.count("/") == 1]
    if not flat:
        return None
    listed = ", ".join(names)
    if len(flat) < len(names):
        deep = next(name for name in names if name not in flat)
        told = f"{root} holds class folders in {deep} and none in {', '.join(flat)}, so {listed} are no classes"
        return UserError(f"{told}\n  give {root / deep}")
    told = f"{root} holds pictures in {listed}, no class folders, and no table of labels that fits"
    return UserError(f"{told}\n  {advice_without_table(root)}")


def advice_without_table(root: Path) -> str:
    """Return what to type for a folder of pictures without class folders and without a table that fits."""
    tables = tables_in(root) or tables_in(root.parent)
    if not tables:
        return "if a table has their labels: csv:FILE?root=DIR&image=COLUMN&label=COLUMN"
    stores = [name for name in sorted(folders_in(root)) if is_store(name)]
    place = root / next((name for name in stores if split_word(name) == "train"), stores[0] if stores else "")
    columns = column_names(tables[0])
    said = f" ({', '.join(columns[:8])})" if columns else ""
    return f"name the columns of the table{said}: csv:{tables[0]}?root={place}&image=COLUMN&label=COLUMN"


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())


def _can_be_stores(root: Path) -> bool:
    """Return whether there are pictures in the folder itself, or folders that need be no classes by their names."""
    if any(is_store(name) or _STORE_WORDS & set(_words(name)) for name in folders_in(root)):
        return True
    return any(not reason for _, reason in pictures_below(root, is_deep=False))


def _has_classes(root: Path) -> bool:
    """Return whether folders of splits hold class folders, and not one more folder of pictures: train/train."""
    inside = (name for folder in recognise(root).folders.values() for name in folders_in(root / folder))
    return any(not is_store(name) for name in inside)


def _fitting(table: Path, names: PictureNames) -> _Fitting | None:
    columns, present = find_columns(table, {}), column_names(table)
    if columns.image not in present or not (columns.classes or columns.label in present):
        return None
    sample = [row[columns.image] for row in first_rows(table, [columns.image], _SAMPLE)]
    found = {name: _files(names, name) for name in dict.fromkeys(sample)}
    if not found or sum(map(bool, found.values())) < _MANY * len(found):
        return None
    wanted = split_word(table.stem) or "train"
    return _Fitting(table, columns, _places(wanted, names.root, {name: f for name, f in found.items() if f}))


def _files(names: PictureNames, name: str) -> list[str]:
    return [name] if "/" in name and (names.root / name).is_file() else names.files(name)


def _places(wanted: str, root: Path, found: Mapping[str, list[str]]) -> tuple[Path, ...]:
    """Return the folders all of the names can count from: one where it is clear, or clear by the split `wanted`."""
    if any("/" in name for name in found):
        return (root,)
    tops = set.intersection(
        *({path.rpartition("/")[0].partition("/")[0] for path in files} for files in found.values())
    )
    unique = [
        top
        for top in sorted(tops - {""})
        if all(sum(path.startswith(f"{top}/") for path in files) == 1 for files in found.values())
    ]
    likely = [top for top in unique if split_word(top) == wanted] or [top for top in unique if is_store(top)] or unique
    return tuple(root / top for top in likely) or (root,)


def _note(root: Path, fitting: _Fitting, address: Address) -> str:
    place = Path(address["root"] or root)
    top = place.relative_to(root).parts[:1]
    others = [name for name in sorted(folders_in(root)) if name not in top] if top else []
    others += sorted(path.name for path in root.iterdir() if path.suffix.lower() in TABLES and path != fitting.table)
    left = f"; not taken: {', '.join(others[:8])}" if others else ""
    files = f" of {top[0]}" if top else ""
    return f"{root}: {fitting.table.name} labels the pictures{files} ({fitting.columns.in_words()}){left}: {address}"
