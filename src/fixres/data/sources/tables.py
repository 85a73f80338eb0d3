"""`csv:FILE[?root=DIR&image=path&label=label&split=split]` - one row per picture, in CSV, TSV, JSONL or Parquet.

Paths are relative to the file, or to `root`; ids without an ending are looked for there and below. Labels are names;
when all of them are whole numbers they sort as numbers. Every mistake names the line. Rows are taken one at a time into
flat arrays, so ten million of them fit.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fixres.config.recipe import Data
from fixres.data.sources.folder import Files
from fixres.data.sources.missing_files import Listed, require_some
from fixres.data.sources.picture_names import PictureNames
from fixres.data.sources.table_columns import (
    LABEL,
    SPLIT,
    Columns,
    class_of,
    class_roles,
    find_columns,
    image_column,
    why_no_label,
)
from fixres.data.sources.table_rows import KEPT, OF_CLASS, read_cells
from fixres.data.sources.uri import Address, Grammar, Scheme
from fixres.data.splits import SPLIT_NAMES, Names, Split
from fixres.errors import UserError, did_you_mean


class Row(NamedTuple):
    """One picture of a table; `line` is where it stands, for messages."""

    line: int
    path: str
    label: str
    split: str
    group: str


@dataclass
class _Filled:
    """Rows in flat arrays, as they come."""

    labels: array[int] = field(default_factory=lambda: array("q"))
    splits: array[int] = field(default_factory=lambda: array("b"))
    hashes: array[int] = field(default_factory=lambda: array("q"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    label_places: dict[str, int] = field(default_factory=dict)


def open_table(data: Data, body: str) -> tuple[str, dict[str, Split], list[str]]:
    """Return the URI, the splits of the split column (or `{"all": ...}` without one) and notes.

    Raises:
        UserError: no such file or column, a row that cannot be used, a picture listed twice, no picture that is there.
    """
    address = SCHEME.parse(body)
    columns = _Filled()
    root = root_of(address)
    paths = Names(_fill(columns, address, root))
    if not len(paths):
        raise UserError(f"{address.body} lists no pictures\n  it needs one row per picture below the column names")
    _refuse_duplicates(paths, columns, address.body, root)
    texts = list(columns.label_places)
    listed = (Listed(path, texts[label]) for path, label in zip(paths, columns.labels, strict=True))
    require_some(listed, address.body, root, f"csv:{address.body}?root=DIR")
    labels, splits = (np.frombuffer(column, dtype=column.typecode) for column in (columns.labels, columns.splits))
    names = list(dict.fromkeys(SPLIT_NAMES.values()))
    found: dict[str, Split] = {}
    for place in np.unique(splits).tolist():
        name = "all" if place < 0 else names[place]
        chosen = np.flatnonzero(splits == place).astype(np.int64, copy=False)
        classes, own = named_labels(list(columns.label_places), labels[chosen])
        kept = paths if len(chosen) == len(paths) else paths.take(chosen)
        found[name] = Split(name, classes, own, kept, Files(root), data.exif, data.alpha)
    return str(address), found, _what_was_taken(address)


def _what_was_taken(address: Address) -> list[str]:
    """Return a note about columns that were not named and are not called as usual."""
    columns = _columns_of(address)
    if not (columns.is_image_guessed or columns.is_label_guessed):
        return []
    return [f"{Path(address.body).name}: {columns.in_words()} (?image=NAME&label=NAME say otherwise)"]


def named_labels(texts: Sequence[str], codes: npt.NDArray[Any]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return the names that occur, sorted, and the label of every picture, int64.

    `codes` are places in `texts`. Whole numbers sort as numbers.
    """
    used = np.unique(codes).tolist()
    order = sorted_names([texts[place] for place in used])
    label = {name: number for number, name in enumerate(order)}
    table = np.zeros(len(texts), dtype=np.int64)
    for place in used:
        table[place] = label[texts[place]]
    return order, table[codes]


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names sorted as text, or as numbers when all are whole numbers."""
    unsorted = list(names)
    if all(re.fullmatch(r"-?[0-9]+", name) for name in unsorted):
        return tuple(sorted(unsorted, key=lambda name: (int(name), name)))
    return tuple(sorted(unsorted))


def read_table(address: Address, group: str = "") -> Iterator[Row]:
    """Yield the rows of the table in order. `split` is empty without such a column, `group` unless one is named.

    Raises:
        UserError: the file or a row cannot be read, or a column is missing; the message names the line.
    """
    path = Path(address.body)
    columns = _columns_of(address, group)
    wanted = {"image": columns.image, "label": columns.label, "split": address["split"] or SPLIT}
    if columns.classes:
        del wanted["label"]
        wanted |= dict(class_roles(columns.classes))
    elif columns.is_label_guessed and columns.label == LABEL and (why := why_no_label(path, columns)):
        raise UserError(f"{path} has no column of labels: {why}\n  ?label=NAME names the column")
    optional = () if address["split"] else ("split",)
    if group:
        wanted["group"] = group
    names = PictureNames(root_of(address))
    for line, cells in read_cells(path, wanted, optional):
        where = f"{path} line {line}"
        if columns.classes:
            label = class_of(cells, where)
            cells = {role: cell for role, cell in cells.items() if not role.startswith(OF_CLASS)} | {"label": label}
        row = _row(path, line, cells, wanted)
        yield row._replace(path=names.path_of(row.path, where, f"{address.scheme}:{path}?root=DIR"))


def root_of(address: Address) -> Path:
    """Return the folder that the paths of a table count from."""
    return Path(address["root"] or Path(address.body).parent)


def _columns_of(address: Address, group: str = "") -> Columns:
    return find_columns(Path(address.body), address.options, (group,) if group else ())


def listed_rows(address: Address, keep: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the path of every picture of a table, labels or not, and the cells of the columns `keep`.

    The column of the pictures is the one that `image=` names, else `path`, else one that is called as usual elsewhere.

    Raises:
        UserError: it cannot be read, or has no such column; from the iterator, a line that cannot be used.
    """
    path = Path(address.body)
    wanted = {"image": address["image"] or image_column(path)}
    names = PictureNames(root_of(address))
    for line, cells in read_cells(path, wanted | {KEPT + column: column for column in keep}):
        row = _row(path, line, {"image": cells["image"]}, wanted)
        found = names.path_of(row.path, f"{path} line {line}", f"csv:{path}?root=DIR")
        yield found, {column: cells[KEPT + column] or "" for column in keep}


def _row(path: Path, line: int, cells: dict[str, str | None], wanted: Mapping[str, str]) -> Row:
    for role, text in cells.items():
        where = f"{path} line {line}: column '{wanted.get(role, role)}'"
        if text is None or not text.strip():
            raise UserError(f"{where} is empty\n  fill it in, or remove the line")
        if "\0" in text:
            raise UserError(f"{where} holds a NUL byte\n  save the table again as plain UTF-8")
        if "\n" in text or "\r" in text:
            raise UserError(f"{where} holds a line break\n  remove it, or close the quotes above it")
    # Blanks around a label would make a second class of the same look; file names keep theirs.
    label, split, group = ((cells.get(role) or "").strip() for role in ("label", "split", "group"))
    if split and split.lower() not in SPLIT_NAMES:
        raise UserError(
            f"{path} line {line}: '{split}' is no split{did_you_mean(split, SPLIT_NAMES)}\n"
            f"  allowed in column '{wanted['split']}': {', '.join(SPLIT_NAMES)}"
        )
    return Row(line, cells["image"] or "", label, SPLIT_NAMES.get(split.lower(), ""), group)


def _fill(columns: _Filled, address: Address, root: Path) -> Iterator[str]:
    """Yield the paths; put everything else into `columns`."""
    names, prefix = list(dict.fromkeys(SPLIT_NAMES.values())), f"{root}/"
    for row in read_table(address):
        columns.labels.append(columns.label_places.setdefault(row.label, len(columns.label_places)))
        columns.splits.append(names.index(row.split) if row.split else -1)
        columns.hashes.append(hash(_plain(row.path, prefix)))
        columns.lines.append(row.line)
        yield row.path


def _plain(path: str, prefix: str) -> str:
    """Return the one spelling of a path below `prefix`. '..' stays: behind a link it leads somewhere else."""
    if path.startswith(("/", "./")) or "//" in path or "/./" in path:
        parts = "/".join(part for part in path.split("/") if part not in ("", "."))
        return f"/{parts}".removeprefix(prefix) if path.startswith("/") else parts
    return path


def _refuse_duplicates(paths: Names, columns: _Filled, table: str, root: Path) -> None:
    hashes = np.frombuffer(columns.hashes, dtype=np.int64)
    order = np.argsort(hashes, kind="stable")
    for place in np.flatnonzero(hashes[order][1:] == hashes[order][:-1]).tolist():
        first, second = order[place], order[place + 1]
        names = list(dict.fromkeys((paths[first], paths[second])))
        if len({_plain(name, f"{root}/") for name in names}) == 1:
            raise UserError(
                f"{table} lines {columns.lines[first]} and {columns.lines[second]} list the same picture, "
                f"{' and '.join(names)}\n  keep one of them: twice in a split it counts double, in two splits it leaks"
            )


SCHEME = Scheme(
    "csv",
    "csv:FILE",
    "one row per picture, in CSV, TSV, JSONL or Parquet",
    open_table,
    Grammar(
        "csv:FILE?root=DIR&image=path&label=label&split=split",
        ("root", "image", "label", "split"),
        ("root",),
        habits={
            **dict.fromkeys(("path", "file", "filename", "id", "image_id", "images", "img"), "image"),
            **dict.fromkeys(("class", "target", "labels", "classes", "y"), "label"),
            **dict.fromkeys(("dir", "folder", "image_dir", "base"), "root"),
        },
    ),
)
